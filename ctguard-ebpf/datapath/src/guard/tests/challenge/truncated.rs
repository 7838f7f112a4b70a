//! Queries that are answered by a truncated reply.

use super::*;

const TRUNCATED: (Outcome, Class) = (Outcome::ChallengedByTruncation, Class::Udp);

#[test]
fn a_query_that_comes_again_is_admitted_although_it_was_answered() {
    let mut lab = challenging();
    lab.policy.switches = Policy::DNS;
    let query = |port| lab.judge(&udp(REMOTE, LOCAL, port, 53));
    assert_eq!(query(5), TRUNCATED);
    assert_eq!(query(5), TRUNCATED, "too soon");
    lab.pass_seconds(1);
    assert_eq!(query(5), RETRIED);
    assert_eq!(lab.udp(REMOTE, 6), TO_COME_AGAIN, "another service");
}

#[test]
fn an_interface_that_answers_nothing_truncates_nothing() {
    let mut lab = challenging();
    lab.policy.switches = Policy::DNS;
    lab.interface.answers_nothing = 1;
    assert_eq!(lab.judge(&udp(REMOTE, LOCAL, 5, 53)), TO_COME_AGAIN);
}
