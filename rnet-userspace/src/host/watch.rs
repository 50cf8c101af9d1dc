//! Changes of the host's links, addresses and routes, as the kernel tells of them.

use std::{
    convert::Infallible,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use futures::StreamExt;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::{runtime, sync::oneshot, time::sleep};

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// How long changes are gathered: one that an administrator makes is many for the kernel.
const GATHER: Duration = Duration::from_millis(100);
/// How long to wait before the kernel is asked again after it has stopped telling.
const RETRY: Duration = Duration::from_secs(1);

/// Follows changes until it is dropped, and does not call back after that.
#[derive(Debug)]
pub struct Watch {
    // Closed to end the thread.
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

/// Calls `on_change`, on a thread of its own, at most 100 ms after links, addresses or routes of the calling
/// thread's network namespace have changed; once for the changes that come meanwhile. It is also called when
/// changes may have been missed.
///
/// # Errors
/// The kernel refuses the socket, or no thread can be started.
pub fn watch(on_change: impl Fn() + Send + Sync + 'static) -> Result<Watch> {
    let (stop, stopped) = oneshot::channel();
    let (tell_ready, ready) = mpsc::channel();
    // It is in the network namespace of the thread that starts it.
    let thread = thread::Builder::new()
        .name("watch".into())
        .spawn(move || run(on_change, &tell_ready, stopped))
        .context("start a thread")?;
    let watch = Watch { stop: Some(stop), thread: Some(thread) };
    ready.recv().context("the thread that follows the kernel's changes has ended")??;
    Ok(watch)
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        // Where `on_change` is what drops it, the thread ends once that returns.
        let thread = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id());
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the thread that follows the kernel's changes has panicked");
        }
    }
}

fn run(on_change: impl Fn(), ready: &mpsc::Sender<Result<()>>, stopped: oneshot::Receiver<Infallible>) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            // The other side waits for it.
            let _ = ready.send(Err(e).context("start a runtime for netlink"));
            return;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            _ = stopped => {}
            () = follow(on_change, ready) => {}
        }
    });
}

/// Ends only when there is nothing to follow from the start.
async fn follow(on_change: impl Fn(), ready: &mpsc::Sender<Result<()>>) {
    let subscribe = || new_multicast_connection(&GROUPS).context("open a netlink socket");
    let (outcome, mut subscription) = match subscribe() {
        Ok(subscription) => (Ok(()), Some(subscription)),
        Err(e) => (Err(e), None),
    };
    if ready.send(outcome).is_err() || subscription.is_none() {
        return;
    }
    loop {
        // The connection ends when its handle is dropped.
        if let Some((connection, _handle, mut changes)) = subscription {
            let connection = tokio::spawn(connection);
            // A full socket buffer is told of by a message as well.
            while changes.next().await.is_some() {
                sleep(GATHER).await;
                while changes.try_recv().is_ok() {}
                on_change();
            }
            connection.abort();
            tracing::warn!("the kernel has stopped telling of changes of links and addresses; asking again");
        }
        sleep(RETRY).await;
        subscription =
            subscribe().inspect_err(|e| tracing::warn!("follow changes of links and addresses: {e:#}")).ok();
        on_change();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::host::testing::{in_new_netns, ip, wait_until};

    #[test]
    fn every_kind_of_change_is_told() {
        // Each in a namespace of its own: what a change brings about later would pass for the next one.
        for (before, change) in [
            ("", "link add name v1 type veth peer name v2"),
            ("link add name v1 type veth peer name v2", "link del v1"),
            ("link add name v1 type veth peer name v2", "addr add 192.0.2.1/24 dev v1"),
            ("link add name v1 type veth peer name v2", "addr add 2001:db8::1/64 dev v1 nodad"),
            ("", "route add blackhole 198.51.100.0/24"),
            ("", "-6 route add blackhole 2001:db8:1::/64"),
        ] {
            in_new_netns(|| {
                if !before.is_empty() {
                    ip(before);
                }
                let calls = Arc::new(AtomicUsize::new(0));
                let counter = Arc::clone(&calls);
                let watch = watch(move || _ = counter.fetch_add(1, Ordering::SeqCst)).unwrap();
                ip(change);
                wait_until(change, || calls.load(Ordering::SeqCst) > 0);
                drop(watch);
                assert_eq!(Arc::strong_count(&calls), 1, "the thread has ended and let go of the callback");
            });
        }
    }

    #[test]
    fn it_starts_and_ends_among_async_tasks() {
        in_new_netns(|| {
            let runtime = runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async { drop(watch(|| {}).unwrap()) });
        });
    }

    #[test]
    fn a_callback_may_drop_it() {
        in_new_netns(|| {
            let slot = Arc::new(std::sync::Mutex::new(None::<Watch>));
            let inner = Arc::clone(&slot);
            *slot.lock().unwrap() = Some(watch(move || drop(inner.lock().unwrap().take())).unwrap());
            ip("link set lo up");
            wait_until("the thread lets go of the callback", || Arc::strong_count(&slot) == 1);
        });
    }
}
