//! The commands that change something.

use super::sweep::{Change, sweep, sweep_interruptions};

const WEB: &[&str] =
    &["run", "-d", "--name", "web", "-p", "8080:80", "-p", "10.200.0.9:5300:53/udp", "sleep", "infinity"];
const RM_WEB: &[&str] = &["rm", "-f", "web"];
const NETWORK: &[&str] = &["network", "create", "--subnet", "10.88.0.0/24", "a"];
const RM_NETWORK: &[&str] = &["network", "rm", "a"];
const CONNECT: &[&str] = &["network", "connect", "a", "web"];
const DISCONNECT: &[&str] = &["network", "disconnect", "a", "web"];
const PUBLISH: &[&str] = &["publish", "web", "--from", "10.0.0.0/8", "9000-9003:9000-9003"];
const UNPUBLISH: &[&str] = &["unpublish", "web", "9000-9003:9000-9003"];

const RUN: Change<'_> = Change { prepare: &[], command: WEB, removes: false, done: "", undo: &[RM_WEB] };
const REMOVE: Change<'_> =
    Change { prepare: &[WEB], command: RM_WEB, removes: true, done: "no such container", undo: &[] };
const CREATE_NETWORK: Change<'_> =
    Change { prepare: &[], command: NETWORK, removes: false, done: "", undo: &[RM_NETWORK] };
const REMOVE_NETWORK: Change<'_> =
    Change { prepare: &[NETWORK], command: RM_NETWORK, removes: true, done: "not found", undo: &[] };
const JOIN: Change<'_> = Change {
    prepare: &[WEB, NETWORK],
    command: CONNECT,
    removes: false,
    done: "",
    undo: &[RM_WEB, RM_NETWORK],
};
const LEAVE: Change<'_> = Change {
    prepare: &[WEB, NETWORK, CONNECT],
    command: DISCONNECT,
    removes: true,
    done: "is not connected",
    undo: &[RM_WEB, RM_NETWORK],
};
const OPEN: Change<'_> =
    Change { prepare: &[WEB], command: PUBLISH, removes: false, done: "", undo: &[RM_WEB] };
const CLOSE: Change<'_> = Change {
    prepare: &[WEB, PUBLISH],
    command: UNPUBLISH,
    removes: true,
    done: "is not published",
    undo: &[RM_WEB],
};

/// A test of each command.
macro_rules! tests {
    ($sweep:ident: $($name:ident of $change:ident;)+) => {
        $(#[test]
        fn $name() {
            testbed::require_root!();
            $sweep(&$change);
        })+
    };
}

tests! { sweep:
    any_call_may_fail_while_a_container_is_made of RUN;
    any_call_may_fail_while_a_container_is_removed of REMOVE;
    any_call_may_fail_while_a_network_is_made of CREATE_NETWORK;
    any_call_may_fail_while_a_network_is_removed of REMOVE_NETWORK;
    any_call_may_fail_while_a_container_is_connected of JOIN;
    any_call_may_fail_while_a_container_is_disconnected of LEAVE;
    any_call_may_fail_while_ports_are_published of OPEN;
    any_call_may_fail_while_ports_are_withdrawn of CLOSE;
}

tests! { sweep_interruptions:
    a_container_is_made_whatever_is_interrupted of RUN;
    a_container_is_connected_whatever_is_interrupted of JOIN;
}
