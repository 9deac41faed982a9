//! The table of a cluster whose nodes keep it apart from their keys, for who has no node: a node is asked, on the port of its clients.
//!
//! Each question is proved by the token, and so is its answer to it: clients have no token. Who hears a question can send it again, and gains nothing:
//! a change names the rows that it was decided on, in each of which a number rises.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use storage_core::{Error, Result};
use storage_embedded::{Node, RowChange};

use crate::{
    engine::{MemberIds, Proved},
    proof,
    rows::Rows,
    token::Token,
};

/// Carries questions to nodes of a cluster.
#[async_trait]
pub trait AskTable: fmt::Debug + Send + Sync {
    /// Asks a node that can be reached: the first that answers, all at once, or for a question that may `change` something one alone.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if nobody was asked or nothing was done; [`Error::PermissionDenied`] for another token; [`Error::UnknownOutcome`] for
    /// a change that may have been made.
    async fn ask(&self, question: Proved, changes: bool, timeout: Duration) -> Result<Proved>;
}

/// The rows and members of a cluster, of whose nodes one is asked.
#[derive(Clone, Debug)]
pub struct AskedTable {
    ask: Arc<dyn AskTable>,
    token: Token,
}

impl AskedTable {
    /// Of the cluster with this token to whose nodes `ask` carries questions.
    pub fn new(ask: Arc<dyn AskTable>, token: Token) -> Self {
        Self { ask, token }
    }

    /// The members by the latest change of them that is committed.
    ///
    /// # Errors
    /// As for [`Rows::all`].
    pub async fn members(&self, timeout: Duration) -> Result<MemberIds> {
        match self.question(Question::Members, timeout).await? {
            TableAnswer::Members { voters, learners } => Ok(MemberIds { voters, learners }),
            _ => Err(unexpected()),
        }
    }

    async fn question(&self, question: Question, timeout: Duration) -> Result<TableAnswer> {
        let changes = matches!(question, Question::Change { .. });
        let nonce = getrandom::u64().map_err(|error| Error::unavailable(error.to_string()))?;
        let body = proof::to_json(&Asked { nonce, question });
        let proof = proof::prove(&self.token, &[b"table question", &body]);
        let request = Proved { body: Bytes::from(body.clone()), proof: Bytes::from(proof) };
        let Proved { body: answer, proof } = self.ask.ask(request, changes, timeout).await?;
        // The question is proved with its answer: an answer that was heard before is none to this one.
        if !proof::proves(&self.token, &[b"table answer", &body, &answer], &proof) {
            return Err(Error::PermissionDenied { source: "the cluster there has another token".into() });
        }
        proof::from_json(&answer).ok_or_else(unexpected)
    }
}

#[async_trait]
impl Rows for AskedTable {
    async fn all(&self, prefix: &str, timeout: Duration) -> Result<BTreeMap<Bytes, Bytes>> {
        match self.question(Question::Rows { prefix: prefix.to_owned() }, timeout).await? {
            TableAnswer::Rows(rows) => {
                Ok(rows.into_iter().map(|(name, row)| (Bytes::from(name), Bytes::from(row))).collect())
            }
            _ => Err(unexpected()),
        }
    }

    async fn change(&self, RowChange { expected, next }: RowChange, timeout: Duration) -> Result<bool> {
        let question = Question::Change { expected: texts(expected)?, next: texts(next)? };
        match self.question(question, timeout).await? {
            TableAnswer::Changed(changed) => Ok(changed),
            _ => Err(unexpected()),
        }
    }
}

/// Answers questions of the table on an embedded node.
#[derive(Clone, Debug)]
pub struct AnsweringTable {
    node: Node,
    token: Token,
}

/// Rows whose names begin so in the configuration table of an embedded node are those of the cluster's own table.
const NODE_PREFIX: &str = "membership/";

/// How long a node may take to answer: less than who asks waits, so that it hears why.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1500);

impl AnsweringTable {
    /// The table of this node's cluster, for who knows the token.
    pub fn new(node: Node, token: Token) -> Self {
        Self { node, token }
    }

    /// Answers a question.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] for another token; [`Error::InvalidArgument`] for what is no question; those of [`Rows`] for the others.
    pub async fn answer(&self, Proved { body, proof }: Proved) -> Result<Proved> {
        // Before anything is parsed: whoever has no token reaches no more than this comparison.
        if !proof::proves(&self.token, &[b"table question", &body], &proof) {
            return Err(Error::PermissionDenied { source: "the token of the cluster is another one".into() });
        }
        let asked = proof::from_json::<Asked>(&body);
        let Asked { question, .. } =
            asked.ok_or_else(|| Error::invalid_argument("this is no question of the table"))?;
        let answer = match question {
            Question::Rows { prefix } => {
                let rows = self.all(&prefix, ANSWERS_WITHIN).await?.into_iter();
                TableAnswer::Rows(rows.map(|(name, row)| Ok((text(name)?, text(row)?))).collect::<Result<_>>()?)
            }
            Question::Change { expected, next } => {
                let change = RowChange { expected: bytes(expected), next: bytes(next) };
                TableAnswer::Changed(self.change(change, ANSWERS_WITHIN).await?)
            }
            Question::Members => {
                let (voters, all) = self.node.committed_members(ANSWERS_WITHIN).await?;
                TableAnswer::Members { learners: all.difference(&voters).copied().collect(), voters }
            }
        };
        let answer = proof::to_json(&answer);
        let proof = proof::prove(&self.token, &[b"table answer", &body, &answer]);
        Ok(Proved { body: Bytes::from(answer), proof: Bytes::from(proof) })
    }
}

/// The rows on the node itself.
#[async_trait]
impl Rows for AnsweringTable {
    async fn all(&self, prefix: &str, timeout: Duration) -> Result<BTreeMap<Bytes, Bytes>> {
        let rows = self.node.rows(format!("{NODE_PREFIX}{prefix}").as_bytes(), timeout).await?;
        Ok(rows.into_iter().map(|(name, row)| (name.slice(NODE_PREFIX.len()..), row)).collect())
    }

    async fn change(&self, RowChange { expected, next }: RowChange, timeout: Duration) -> Result<bool> {
        let placed = |rows: BTreeMap<Bytes, Option<Bytes>>| {
            let rows = rows.into_iter();
            rows.map(|(name, row)| ([NODE_PREFIX.as_bytes(), &name].concat().into(), row)).collect()
        };
        self.node.change_rows(RowChange { expected: placed(expected), next: placed(next) }, timeout).await
    }
}

#[derive(Serialize, Deserialize)]
struct Asked {
    /// Drawn by lot: an answer is proved to be one to this question.
    nonce: u64,
    question: Question,
}

#[derive(Serialize, Deserialize)]
enum Question {
    Rows { prefix: String },
    Change { expected: Texts, next: Texts },
    Members,
}

#[derive(Serialize, Deserialize)]
enum TableAnswer {
    Rows(BTreeMap<String, String>),
    Changed(bool),
    Members { voters: BTreeSet<u64>, learners: BTreeSet<u64> },
}

type Texts = BTreeMap<String, Option<String>>;

fn texts(rows: BTreeMap<Bytes, Option<Bytes>>) -> Result<Texts> {
    rows.into_iter().map(|(name, row)| Ok((text(name)?, row.map(text).transpose()?))).collect()
}

fn bytes(texts: Texts) -> BTreeMap<Bytes, Option<Bytes>> {
    texts.into_iter().map(|(name, row)| (name.into(), row.map(Bytes::from))).collect()
}

fn text(bytes: Bytes) -> Result<String> {
    String::from_utf8(bytes.into()).map_err(|_| Error::corrupt("a row of the cluster's table is no text"))
}

fn unexpected() -> Error {
    Error::corrupt("a question of the cluster's table was answered with something else")
}
