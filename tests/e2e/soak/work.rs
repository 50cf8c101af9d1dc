//! Those who use an instance all at once.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use testbed::{
    Container, Host, Rnet,
    commands::{Commands, assert_refused},
    topology::CLIENT,
    traffic::{
        Failure, Server,
        tcp::{self, Transfer},
        udp,
    },
};

/// Threads that work until all is over, or one of them has failed.
#[derive(Debug, Default)]
pub(super) struct Crew {
    over: AtomicBool,
    rounds: AtomicU64,
}

/// Ends the work of a crew when it is dropped, by a panic too: nobody else would, and the test would not end.
#[derive(Debug)]
pub(super) struct End<'c>(&'c Crew);

impl End<'_> {
    /// Ends it now.
    pub(super) fn finish(self) {}
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

impl Crew {
    /// Does the same again and again, with the number of the round, and says how often. Once at the least.
    pub(super) fn work(&self, mut round: impl FnMut(u64)) -> u64 {
        for done in 1.. {
            let on_panic = End(self);
            round(done);
            std::mem::forget(on_panic);
            self.rounds.fetch_add(1, Ordering::Relaxed);
            if self.over.load(Ordering::Relaxed) {
                return done;
            }
        }
        unreachable!("rounds do not come to an end by themselves")
    }

    /// For whoever waits for the crew.
    pub(super) fn on_panic(&self) -> End<'_> {
        End(self)
    }

    /// # Panics
    /// When somebody has failed.
    pub(super) fn assert_at_work(&self) {
        assert!(!self.over.load(Ordering::Relaxed), "somebody of the crew has failed");
    }
}

/// How often each was done.
#[derive(Debug)]
pub(super) struct Done {
    connections: u64,
    publishings: u64,
    lives: u64,
    questions: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, publishings, lives, questions } = self;
        write!(
            f,
            "{connections} rounds of connections, {publishings} of publishing, {lives} of containers, \
             {questions} of questions"
        )
    }
}

/// A server and a client on one network, and a server outside.
pub(super) struct Site<'h> {
    host: &'h Host,
    rnet: Commands<'h>,
    web: Container,
    app: Container,
    _servers: [Server; 3],
}

impl<'h> Site<'h> {
    pub(super) fn new(host: &'h Host, rnet: &'h Rnet<'_>) -> Self {
        let web = rnet.run("web", &["-p", "8080:80", "-p", "5300:53/udp"]);
        let app = rnet.run("app", &[]);
        let servers = [
            tcp::echo(&web.ns, "0.0.0.0:80"),
            udp::echo(&web.ns, "0.0.0.0:53"),
            tcp::echo(&host.client, "0.0.0.0:9000"),
        ];
        Self { host, rnet: rnet.commands(), web, app, _servers: servers }
    }

    /// Connections that stay, one of each way.
    pub(super) fn transfers(&self) -> Vec<(&'static str, Transfer)> {
        let Self { host, web, app, .. } = self;
        let ways = [
            ("to a published port", &host.client, host.at(8080)),
            ("to the outside", &app.ns, (CLIENT, 9000).into()),
            ("between containers", &app.ns, web.at(80)),
            ("to the host's own port", &app.ns, host.at(8080)),
        ];
        ways.map(|(what, from, to)| (what, Transfer::start(from, tcp::connect(from, to).unwrap()))).into()
    }

    /// Everything for so long.
    pub(super) fn at_work_for(&self, time: Duration) -> Done {
        let crew = Crew::default();
        let end = Instant::now() + time;
        thread::scope(|scope| {
            let connections = scope.spawn(|| crew.work(|_| self.speak()));
            let publishings = scope.spawn(|| crew.work(|round| self.publish(round)));
            let lives = [0, 1].map(|who| {
                let crew = &crew;
                scope.spawn(move || crew.work(|round| self.live(who, round)))
            });
            let questions = scope.spawn(|| crew.work(|_| self.ask()));
            let ended = crew.on_panic();
            while Instant::now() < end {
                crew.assert_at_work();
                thread::sleep(Duration::from_millis(50));
            }
            ended.finish();
            let lives = lives.map(|thread| thread.join().unwrap()).iter().sum();
            Done {
                connections: connections.join().unwrap(),
                publishings: publishings.join().unwrap(),
                lives,
                questions: questions.join().unwrap(),
            }
        })
    }

    /// A connection of each way, and a datagram.
    pub(super) fn speak(&self) {
        let Self { host, web, app, .. } = self;
        tcp::ask(&host.client, host.at(8080));
        tcp::ask(&app.ns, (CLIENT, 9000).into());
        tcp::ask(&app.ns, web.at(80));
        tcp::ask(&app.ns, host.at(8080));
        let socket = udp::connect(&host.client, host.at(5300));
        assert_eq!(udp::ask(&socket, b"a datagram"), Ok(()));
    }

    /// Ports of a running container come and go.
    fn publish(&self, round: u64) {
        let ports = (9100..9110).map(|port| format!("{port}:80")).collect::<Vec<_>>();
        let ports = ports.iter().map(String::as_str).collect::<Vec<_>>();
        let to = self.host.at(9100 + (round % 10) as u16);
        self.rnet.ok(&[&["publish", "web"], &ports[..]].concat());
        tcp::ask(&self.host.client, to);
        self.rnet.ok(&[&["unpublish", "web"], &ports[..]].concat());
        assert_eq!(tcp::connect(&self.host.client, to).unwrap_err(), Failure::Refused, "{to} is closed");
    }

    /// A container with its network comes, is spoken to, and goes.
    fn live(&self, who: u16, round: u64) {
        let (name, network, port) = (format!("life{who}"), format!("net{who}"), 7000 + who);
        self.rnet.ok(&["network", "create", &network]);
        let container = self.rnet.run(&name, &["-p", &format!("{port}:80")]);
        let server = tcp::echo(&container.ns, "0.0.0.0:80");
        tcp::ask(&self.host.client, self.host.at(port));
        self.rnet.ok(&["network", "connect", &network, &name]);
        tcp::ask(&self.host.client, self.host.at(port));
        tcp::ask(&self.app.ns, self.host.at(port));
        if round.is_multiple_of(2) {
            self.rnet.ok(&["network", "disconnect", &network, &name]);
        }
        drop(server);
        self.rnet.ok(&["rm", "-f", &name]);
        self.rnet.ok(&["network", "rm", &network]);
    }

    /// Those who watch.
    fn ask(&self) {
        for question in [&["ps"][..], &["conntrack", "ls"], &["stats"], &["network", "inspect", "bridge"]] {
            self.rnet.ok(question);
        }
    }

    /// Changes of which any may be cut off, or find that one before it was. Whoever does one has `turn`.
    pub(super) fn change_what_it_can(&self, turn: &Mutex<()>, round: u64) {
        let port = format!("{}:80", 9200 + round % 8);
        let changes: [&[&str]; 7] = [
            &["network", "create", "net"],
            &["run", "-d", "--name", "life", "-p", "7000:80"],
            &["network", "connect", "net", "life"],
            &["publish", "web", &port],
            &["unpublish", "web", &port],
            &["rm", "-f", "life"],
            &["network", "rm", "net"],
        ];
        for change in changes {
            let _mine = turn.lock().unwrap();
            let finished = self.rnet.cmd(change);
            if !finished.status.success() {
                assert_refused(&change.join(" "), &finished);
            }
        }
    }

    /// All that [`Site::change_what_it_can`] may have left.
    pub(super) fn remove_what_was_changed(&self) {
        self.rnet.cmd(&["rm", "-f", "life"]);
        self.rnet.cmd(&["network", "rm", "net"]);
        for port in 9200..9208 {
            self.rnet.cmd(&["unpublish", "web", &format!("{port}:80")]);
        }
    }
}
