//! Answers of two servers, made alike where they may differ: who answers, and how much time is left.

use std::time::Duration;

use futures::{StreamExt, channel::mpsc};
use storage_etcd_api::proto::etcdserverpb::{self as pb, watch_request::RequestUnion};
use tonic::{Code, Status};

use super::{
    common::rpc::{Raw, Rpc},
    requests::Request,
};

/// What a server answered: debug text of the message, and its revision; or code and words of the error.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Done { text: String, revision: i64 },
    Refused(Code, String),
}

/// How long a watch may take to be served.
const SERVED_WITHIN: Duration = Duration::from_secs(20);

pub(crate) async fn ask(rpc: &Rpc, request: Request) -> Answer {
    match request {
        Request::Range(request) => answer(rpc.range(request).await, |answer| &mut answer.header),
        Request::Put(request) => answer(rpc.put(request).await, |answer| &mut answer.header),
        Request::Delete(request) => answer(rpc.delete(request).await, |answer| &mut answer.header),
        Request::Txn(request) => answer(rpc.txn(request).await, |answer| &mut answer.header),
        Request::Compact(revision) => answer(rpc.compact(revision).await, |answer| &mut answer.header),
        Request::Grant { id, ttl } => answer(rpc.grant(id, ttl).await, |answer| &mut answer.header),
        Request::Revoke(id) => answer(rpc.revoke(id).await, |answer| &mut answer.header),
        Request::TimeToLive(id) => {
            let life = rpc.time_to_live(id).await.map(|mut answer| {
                answer.ttl = answer.ttl.signum();
                answer.keys.sort();
                answer
            });
            answer(life, |answer| &mut answer.header)
        }
        Request::KeepAlive(id) => answer(rpc.keep_alive(id).await, |answer| &mut answer.header),
        Request::Unreadable(method, bytes) => match rpc.unary::<_, ()>(method, Raw(bytes)).await {
            Ok(()) => Answer::Done { text: "it was read".to_owned(), revision: 0 },
            // Each reader has words of its own for what it cannot read.
            Err(status) => Answer::Refused(status.code(), "unreadable".to_owned()),
        },
        Request::Leases => {
            let leases = rpc.leases().await.map(|mut answer| {
                answer.leases.sort_by_key(|lease| lease.id);
                answer
            });
            answer(leases, |answer| &mut answer.header)
        }
        Request::Watch { create, twice } => watch(rpc, create, if twice { 2 } else { 1 }).await,
    }
}

pub(crate) fn answer<A: std::fmt::Debug>(
    answer: Result<A, Status>,
    header: impl Fn(&mut A) -> &mut Option<pb::ResponseHeader>,
) -> Answer {
    match answer {
        Ok(mut answer) => {
            let revision = strip(header(&mut answer));
            Answer::Done { text: format!("{answer:?}"), revision }
        }
        Err(status) => Answer::Refused(status.code(), status.message().to_owned()),
    }
}

/// Removes who answered.
fn strip(header: &mut Option<pb::ResponseHeader>) -> i64 {
    let header = header.as_mut().expect("an answer has a header");
    (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
    header.revision
}

/// Creates so many watches, with the same id if it is given one, and collects events until all that has happened is there.
pub(crate) async fn watch(rpc: &Rpc, create: pb::WatchCreateRequest, count: i32) -> Answer {
    let (requests, outgoing) = mpsc::unbounded();
    let send = |request| requests.unbounded_send(pb::WatchRequest { request_union: Some(request) }).unwrap();
    (0..count).for_each(|_| send(RequestUnion::CreateRequest(create.clone())));
    let mut answers = match rpc.stream::<_, pb::WatchResponse>("/etcdserverpb.Watch/Watch", outgoing).await {
        Ok(answers) => answers,
        Err(status) => return Answer::Refused(status.code(), status.message().to_owned()),
    };
    let (mut told, mut events) = (Vec::new(), std::collections::BTreeMap::<i64, Vec<_>>::new());
    let (mut created, mut open) = (0, 0);
    let collect = async {
        let mut again = tokio::time::interval(Duration::from_millis(30));
        while created < count || open > 0 {
            tokio::select! {
                // It is not answered while watches are behind, and there may be nobody to answer it.
                _ = again.tick() => if created == count { send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})) },
                answer = answers.next() => {
                    let answer = answer.expect("the stream goes on").expect("a watch does not fail");
                    if answer.created {
                        created += 1;
                        open += i32::from(!answer.canceled);
                        told.push((answer.watch_id, answer.canceled, 0, answer.cancel_reason));
                    } else if answer.canceled {
                        open -= 1;
                        told.push((answer.watch_id, true, answer.compact_revision, answer.cancel_reason));
                    } else if answer.events.is_empty() {
                        // The progress of all.
                        assert_eq!(answer.watch_id, -1);
                        open = 0;
                    } else {
                        events.entry(answer.watch_id).or_default().extend(answer.events);
                    }
                }
            }
        }
    };
    tokio::time::timeout(SERVED_WITHIN, collect).await.expect("a watch is served");
    // Whether a watch is cancelled before or after the next one is created is a matter of time.
    told.sort();
    Answer::Done { text: format!("{told:?} {events:?}"), revision: 0 }
}
