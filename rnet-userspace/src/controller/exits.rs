//! What becomes of a container when its process starts and ends.

use super::{
    Controller,
    backend::{Datapath, Host},
    engines::check_own,
    error::{Error, Result},
    now,
    step::{Change, Step},
    view::{self, ContainerState},
};
use crate::store::schema::{Container, Phase};

impl<H: Host, D: Datapath> Controller<H, D> {
    /// Notes that a container's process runs.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it runs already or has ended.
    pub fn mark_started(&mut self, name_or_id: &str, pid: u32) -> Result<view::Container> {
        let container = self.find_container(name_or_id)?.clone();
        if container.state != ContainerState::Created || container.phase != Phase::Ready {
            let what = match container.state {
                ContainerState::Running => "is running already",
                ContainerState::Created | ContainerState::Exited => "has ended",
            };
            return Err(Error::Conflict(format!("cannot start container {}: it {what}", container.name)));
        }
        let started = Container {
            state: ContainerState::Running,
            pid: Some(pid),
            process_start: self.machine.host.process_start(pid)?,
            started: Some(now()),
            ..container.clone()
        };
        let view = self.save(container, started.clone())?;
        self.tell_container("start", &started, &[]);
        Ok(view)
    }

    /// Notes that a container's process has ended, with its exit status if it is known. As with Docker its
    /// address and its ports are free from then on, and it is removed if it was to be. A container that has
    /// ended already keeps the exit status that was noted first.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Failed`] when some of its network could not be removed:
    /// [`Controller::refresh_host`] tries again.
    pub fn mark_exited(&mut self, name_or_id: &str, code: Option<i32>) -> Result<view::Container> {
        let container = self.find_container(name_or_id)?.clone();
        check_own(&container)?;
        self.note_exited(container, code)
    }

    /// The same of any container.
    pub(super) fn note_exited(&mut self, container: Container, code: Option<i32>) -> Result<view::Container> {
        let code = code.or_else(|| self.code_left_by(&container));
        let exited = Container {
            state: ContainerState::Exited,
            pid: None,
            process_start: None,
            exit_code: container.exit_code.or(code),
            finished: container.finished.clone().or_else(|| Some(now())),
            ..container.clone()
        };
        if exited != container {
            self.save(container, exited.clone())?;
            let code = exited.exit_code.map(|code| code.to_string());
            let code = code.as_deref().map(|code| ("exitCode", code));
            self.tell_container("die", &exited, code.as_slice());
        }
        self.release(exited)
    }

    /// What a process that ended unseen has left.
    fn code_left_by(&self, container: &Container) -> Option<i32> {
        container.pid?;
        let left = self.machine.host.exit_code(&self.dir(&container.id));
        left.unwrap_or_else(|e| {
            tracing::warn!(container = container.name, "learn how its process ended: {e:#}");
            None
        })
    }

    /// Takes from a container that has ended what it still has, and removes it if it was to be.
    pub(super) fn release(&mut self, container: Container) -> Result<view::Container> {
        if container.remove {
            let view = self.container_view(&container);
            self.destroy_container(container)?;
            return Ok(view);
        }
        if container.netns.is_none() {
            return Ok(self.container_view(&container));
        }
        let steps = self.release_steps(&container)?;
        self.machine.apply_all(&steps)?;
        let released =
            Container { netns: None, endpoints: Vec::new(), ports: Vec::new(), ..container.clone() };
        let view = self.save(container.clone(), released)?;
        self.tell_released(&container);
        Ok(view)
    }

    fn save(&mut self, before: Container, after: Container) -> Result<view::Container> {
        self.machine.apply(&[Step::SaveContainer(Change::replace(before, after.clone()))])?;
        Ok(self.container_view(&after))
    }
}
