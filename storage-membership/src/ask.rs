//! The questions of the founding [`protocol`](crate::protocol) as they travel: proved by the token, each for one replica and one time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use storage_core::{Error, Result};

use crate::{
    engine::{AnswerQuestion, Engine, Proved},
    identity::ReplicaDir,
    ids::ReplicaId,
    proof,
    protocol::{Question, Reply},
    settings::Replica,
    token::Token,
};

/// A question as it travels: nobody can take it for one of another two.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    from: ReplicaId,
    to: ReplicaId,
    /// Drawn by lot, so that an answer to an earlier question proves nothing: it is a part of what an answer's proof is about.
    nonce: u64,
    question: Question,
}

/// Asks another replica.
///
/// # Errors
/// [`Error::Unavailable`] if it does not answer, or with another token. A node that runs there does not know the question.
pub(crate) async fn ask(
    engine: &dyn Engine,
    from: ReplicaId,
    to: &Replica,
    question: Question,
    token: &Token,
    timeout: Duration,
) -> Result<Reply> {
    let nonce = getrandom::u64().map_err(|error| Error::unavailable(error.to_string()))?;
    let body = proof::to_json(&Asked { from, to: to.id, nonce, question });
    let proof = proof::prove(token, &[b"question", &body]);
    let request = Proved { body: Bytes::from(body.clone()), proof: Bytes::from(proof) };
    let answer = engine.ask(to, request, timeout).await?;
    if !proof::proves(token, &[b"answer", &body, &answer.body], &answer.proof) {
        return Err(Error::PermissionDenied { source: format!("replica {} has another token", to.id).into() });
    }
    proof::from_json(&answer.body).ok_or_else(|| Error::corrupt("an answer that is none"))
}

/// Answers the questions of others for the replica of a directory.
pub(crate) fn answers(own: ReplicaId, token: Token, dir: Arc<Mutex<ReplicaDir>>) -> AnswerQuestion {
    Arc::new(move |Proved { body, proof }| {
        if !proof::proves(&token, &[b"question", &body], &proof) {
            return Err(Error::PermissionDenied { source: "the token of the cluster is another one".into() });
        }
        let asked = proof::from_json::<Asked>(&body).filter(|asked| asked.to == own);
        let asked = asked.ok_or_else(|| Error::invalid_argument(format!("this is replica {own}")))?;
        let answer = proof::to_json(&answer(&dir, asked.question)?);
        let proof = proof::prove(&token, &[b"answer", &body, &answer]);
        Ok(Proved { body: Bytes::from(answer), proof: Bytes::from(proof) })
    })
}

/// Answers for the replica of a directory. What it promises is on stable storage when this returns.
pub(crate) fn answer(dir: &Mutex<ReplicaDir>, question: Question) -> Result<Reply> {
    let mut dir = dir.lock().unwrap_or_else(PoisonError::into_inner);
    match dir.identity().cluster {
        Some(cluster) => Ok(Reply::Exists(cluster)),
        None => dir.change(|identity| identity.promises.answer(question)),
    }
}
