//! Callers that wait for the leader's answer, and how all answers of a batch get to them.
//!
//! Callers run on a runtime of their own. Woken one by one from the node's thread, each would take the processor from it
//! before the next is told, and a batch would come apart into as many changes of threads as it has callers. So the answers of a batch
//! travel together, as one task of the callers' runtime. See docs/decisions/0003-engine.md.

use tokio::{runtime::Handle, sync::oneshot};

use crate::network::message::Reply;

/// A caller that waits for its answer.
#[derive(Debug)]
pub(super) struct Waiter {
    answer: oneshot::Sender<Reply>,
    /// The caller's runtime.
    home: Option<Handle>,
}

impl Waiter {
    /// A waiter on the current runtime, and where its answer comes.
    pub(super) fn new() -> (Self, oneshot::Receiver<Reply>) {
        let (answer, receiver) = oneshot::channel();
        (Self { answer, home: Handle::try_current().ok() }, receiver)
    }

    fn lives_with(&self, other: &Option<Handle>) -> bool {
        self.home.as_ref().map(Handle::id) == other.as_ref().map(Handle::id)
    }
}

/// Gives everyone their answer. Whoever has stopped waiting misses it.
pub(super) fn answer_all(mut answers: Vec<(Waiter, Reply)>) {
    let here = Handle::try_current().ok();
    while let Some((first, _)) = answers.first() {
        let home = first.home.clone();
        // Those of one runtime go together, in the order in which they called.
        let (together, others) = answers.into_iter().partition::<Vec<_>, _>(|(waiter, _)| waiter.lives_with(&home));
        answers = others;
        let alone = together.len() == 1;
        let give = move || {
            for (waiter, reply) in together {
                let _ = waiter.answer.send(reply);
            }
        };
        // One answer, or one to a task of this runtime, is given directly: a task for it would only be another wake-up.
        match home {
            Some(home) if !alone && here.as_ref().is_none_or(|here| here.id() != home.id()) => {
                home.spawn(async move { give() });
            }
            _ => give(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).build().unwrap()
    }

    #[test]
    fn everyone_has_their_own_answer_wherever_they_wait() {
        let (first, second) = (runtime(), runtime());
        let homes = [Some(&first), Some(&second), Some(&first), None, Some(&first), Some(&second)];
        let (waiters, receivers): (Vec<_>, Vec<_>) = homes
            .iter()
            .map(|home| {
                let _entered = home.map(|home| home.enter());
                Waiter::new()
            })
            .unzip();
        let answers = waiters.into_iter().zip(0..).map(|(waiter, number)| (waiter, Reply::ReadIndex(number))).collect();
        second.block_on(async move { answer_all(answers) });
        for (receiver, number) in receivers.into_iter().zip(0..) {
            assert_eq!(receiver.blocking_recv().unwrap(), Reply::ReadIndex(number));
        }
    }

    #[test]
    fn a_runtime_that_has_ended_keeps_nobody_else_waiting() {
        let (gone, alive) = (runtime(), runtime());
        let waiting = |home: &Runtime| {
            let _entered = home.enter();
            Waiter::new()
        };
        let ((lost, _), (lost_too, _)) = (waiting(&gone), waiting(&gone));
        let ((waiter, answer), (other, other_answer)) = (waiting(&alive), waiting(&alive));
        drop(gone);
        let reply = || Reply::NotLeader;
        answer_all(vec![(lost, reply()), (waiter, reply()), (lost_too, reply()), (other, reply())]);
        assert_eq!(answer.blocking_recv().unwrap(), Reply::NotLeader);
        assert_eq!(other_answer.blocking_recv().unwrap(), Reply::NotLeader);
    }
}
