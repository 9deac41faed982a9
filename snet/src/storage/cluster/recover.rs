//! `snet storage cluster recover`

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, BufRead, IsTerminal as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::anyhow;
use storage_membership::{AnsweringNode, ClusterId, Recovered, Voter};
use storage_replica::{
    config::{Bootstrap, Growing},
    growing::survivor,
    snapshot::Salvaged,
};

use super::super::config;
use crate::{
    exit::{Failure, Outcome},
    output::Output,
    table::{Table, thousands},
};

/// The last resort: make a new cluster of what this replica holds, when a majority of the voters' disks is gone for good.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage cluster recover --config cluster.toml --replica 3
      on the machine of replica 3, which is stopped, as all others are. It asks, and each answer has to be typed
  snet storage cluster recover --config cluster.toml --replica 3 \\
      --i-know-that-acknowledged-writes-may-be-lost 9236d4ace38e5297f42013a3ec30638c
      for programs: the id of the cluster stands for all answers

IF THE DISKS OF A MAJORITY CAN BE BROUGHT BACK, BRING THEM BACK INSTEAD: then nothing that was acknowledged is lost. Here it may be: whatever the others had and this
replica had not. Also a write may appear that nobody acknowledged, whose outcome was told to be unknown.

What it does: it looks whether nodes of the cluster still run, or of another one at the URLs of its replicas, and refuses if one does. It takes what the stopped node holds, its whole log with it, and makes a new directory with
that, in which the replica founds a new cluster with a new id. The old directory stays beside it, unchanged, as DIR.lost-CLUSTER. If the power fails meanwhile, the replica has the old
or the new directory. Choose the survivor whose log is the furthest: the highest last term, and of these the highest last index; `snapshot salvage` prints both.

No disk of the old cluster may ever be started again. A single one is refused by the new cluster, since its id is another; a majority of them would be a cluster beside it.")]
pub(crate) struct Recover {
    /// The file that lists all replicas.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The id of the replica whose data are left, on this machine.
    #[arg(long, value_name = "ID")]
    replica: u64,
    /// The id of the lost cluster, instead of answers that are typed.
    #[arg(long = "i-know-that-acknowledged-writes-may-be-lost", value_name = "CLUSTER")]
    known: Option<ClusterId>,
    /// How much to add to the revision: more than the writes that may be lost, so that no revision is given twice.
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000_000)]
    bump_revision: u64,
    /// How long the other replicas may take to answer, in seconds.
    #[arg(long, default_value_t = 3, value_name = "NUMBER")]
    seconds: u64,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(arguments: &Recover) -> Outcome {
    let Recover { replica, known, bump_revision, seconds, output, .. } = arguments;
    let growing = config::load(&arguments.config)?.growing(*replica, Bootstrap::Join);
    let growing = growing.map_err(|reason| Failure::Usage(anyhow!(reason)))?;
    let opened = growing.clone();
    let survivor = blocking(move || survivor(opened)).await??;
    let answering = survivor.answering(Duration::from_secs(*seconds)).await;
    if let Some(refusal) = refusal(&answering, survivor.could_be_majority(&answering), survivor.cluster(), *replica) {
        return Err(Failure::no(refusal));
    }
    let found = survivor.found();
    let end = End { term: found.last_term, index: found.last_index };
    let case = Case { cluster: survivor.cluster(), end, voters: survivor.voters() };
    eprintln!("{}", case.warning(&growing, &found));
    match known {
        Some(known) if *known == survivor.cluster() => {}
        Some(known) => {
            let cluster = survivor.cluster();
            return Err(Failure::Usage(anyhow!(
                "replica {replica} is of cluster {cluster}, not of {known}: nothing was changed"
            )));
        }
        None if !io::stdin().is_terminal() => {
            return Err(Failure::Usage(anyhow!(
                "nobody is there to answer: say `--i-know-that-acknowledged-writes-may-be-lost` with the id of the cluster; nothing was changed"
            )));
        }
        None => {
            let is_lost = |lost: &BTreeSet<u64>| survivor.is_majority_lost(lost);
            case.ask(&is_lost, &mut io::stdin().lock(), &mut |question| eprintln!("{question}"))?;
        }
    }
    let bump_revision = *bump_revision;
    let recovered = blocking(move || survivor.recover(bump_revision)).await??;
    output.print(&recovered, |recovered| table(recovered, &growing, arguments))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::Missing(error.into()))
}

/// Why nothing is done while nodes of the cluster run.
fn refusal(answering: &[AnsweringNode], is_majority: bool, cluster: ClusterId, replica: u64) -> Option<String> {
    let others: Vec<_> = answering
        .iter()
        .filter_map(|other| {
            let id = other.other_cluster?;
            Some(format!("replica {} at {} (cluster {id:x} by its API)", other.replica, other.client_url))
        })
        .collect();
    if !others.is_empty() {
        return Some(format!(
            "another cluster answers: {}. If somebody has recovered there already, a second recovery would make a second cluster: remove the data directory of replica \
             {replica} and let it join that one. If it was left there by mistake, stop it; nothing was changed",
            others.join(", ")
        ));
    }
    if answering.is_empty() {
        return is_majority.then(|| {
            format!(
                "cluster {cluster} is not lost: replica {replica} is a majority of its voters by itself, so start it; nothing was changed"
            )
        });
    }
    let who: Vec<_> = answering
        .iter()
        .map(|other| {
            format!(
                "replica {} at {} (node {:x}, {}, log {} in term {})",
                other.replica,
                other.client_url,
                other.node,
                if other.is_voter { "a voter" } else { "no voter" },
                other.log_index,
                other.term
            )
        })
        .collect();
    let who = who.join(", ");
    Some(if is_majority {
        format!(
            "cluster {cluster} is not lost: {who} answers, so start replica {replica} and bring back what else there is; nothing was changed"
        )
    } else {
        format!(
            "cluster {cluster} still has nodes that run: {who}. No old node may run when a new cluster is made: stop it, and see that it cannot start. If its log is \
             further than that of replica {replica}, recover there; nothing was changed"
        )
    })
}

/// What is to be decided, and by what.
struct Case {
    cluster: ClusterId,
    end: End,
    voters: Vec<Voter>,
}

/// Where the log of the survivor ends.
struct End {
    term: u64,
    index: u64,
}

impl Case {
    /// What it is about, loudly.
    fn warning(&self, growing: &Growing, found: &Salvaged) -> String {
        let Self { cluster, end: End { term, index }, voters } = self;
        let replica = growing.membership.replica.id;
        let unsure = found.last_index - found.committed_index;
        let mut text = format!(
            "\n*** LAST RESORT: A NEW CLUSTER OF WHAT REPLICA {replica} HOLDS ***\n\n\
             Cluster {cluster} is given up for ever. If the disks of a majority of its voters can be brought back, stop here and bring them back.\n\
             WHAT MAY BE LOST: every acknowledged write that replica {replica} had not received.\n\
             WHAT MAY APPEAR: writes that nobody acknowledged, among the last {unsure} entries of its log.\n\
             WHAT MUST NEVER HAPPEN: that a disk of cluster {cluster}, or a copy of one, is started again. Two clusters would then acknowledge payments.\n\n\
             Replica {replica}, in {}, holds {} keys and {} leases at revision {}; its log ends with entry {index} of term {term}.\nThe voters that it knows:\n",
            growing.membership.data_dir.display(),
            thousands(found.keys as f64),
            thousands(found.leases as f64),
            found.revision,
        );
        for Voter { node, name, peer_address, is_survivor } in voters {
            let who = if *is_survivor { "this replica" } else { "does not answer" };
            let _ = writeln!(text, "  {name}  node {node:x}  {peer_address}  {who}");
        }
        text
    }

    /// Asks for each thing that has to be so. A line that is not the answer ends it.
    fn ask(
        &self,
        is_majority_lost: &dyn Fn(&BTreeSet<u64>) -> bool,
        input: &mut dyn BufRead,
        say: &mut dyn FnMut(&str),
    ) -> Outcome {
        let wrong = |why: String| Failure::Usage(anyhow!("{why}: nothing was changed"));
        let mut answer = |question: &str| -> Result<String, Failure> {
            say(question);
            let mut line = String::new();
            let read = input.read_line(&mut line);
            read.map_err(|error| Failure::Missing(anyhow!("standard input: {error}")))?;
            Ok(line.trim().to_owned())
        };

        let named =
            answer("1. Whose disks are gone for good? Type the names of these voters, with blanks between them:")?;
        let mut lost = BTreeSet::new();
        for name in named.split([' ', ',']).filter(|name| !name.is_empty()) {
            match self.voters.iter().find(|voter| voter.name == name) {
                Some(voter) if voter.is_survivor => {
                    return Err(wrong(format!("`{name}` is this replica, whose disk is here")));
                }
                Some(voter) => drop(lost.insert(voter.node)),
                None => return Err(wrong(format!("there is no voter `{name}`"))),
            }
        }
        // Reckoned here and not asked: in distress, two of five are soon taken for a majority.
        if !is_majority_lost(&lost) {
            return Err(wrong(
                "the others are a majority: start them with their disks, and the cluster goes on without any loss"
                    .to_owned(),
            ));
        }
        let End { term, index } = self.end;
        let end = answer(
            "2. Is there no other disk whose log is further? `snet storage snapshot salvage FILE --data-dir DIR` prints the end of the log of each: the higher term is \
             further, and in the same term the higher index. If none is further than this one, type the term and the index of this one, with a blank between them:",
        )?;
        if end.split_whitespace().collect::<Vec<_>>() != [term.to_string(), index.to_string()] {
            return Err(wrong(format!("the log of this replica ends with `{term} {index}`, not with `{end}`")));
        }
        // Something has to be typed that stands above and cannot be guessed: a yes is given without reading.
        let id = answer(
            "3. Can none of the old nodes ever start again, and no copy of their disks, whatever restarts machines there? Then type the id of the cluster that is given up:",
        )?;
        if id != self.cluster.to_string() {
            return Err(wrong(format!("`{id}` is not the id of the cluster")));
        }
        Ok(())
    }
}

fn table(recovered: &Recovered, growing: &Growing, arguments: &Recover) -> String {
    let (id, file) = (arguments.replica, arguments.config.display());
    let mut table = Table::default();
    table.row(["new cluster", &recovered.cluster.to_string()]);
    table.row(["lost cluster", &recovered.lost_cluster.to_string()]);
    table.row(["data directory", &growing.membership.data_dir.display().to_string()]);
    table.row(["old directory", &recovered.former_directory.display().to_string()]);
    table.row(["keys", &thousands(recovered.keys as f64)]);
    table.row(["leases", &thousands(recovered.leases as f64)]);
    table.row(["revision", &recovered.revision.to_string()]);
    format!(
        "{table}\nHow to go on:\n\
         1. snet storage serve --incremental --config {file} --replica {id}\n   \
            without --bootstrap: it knows that it founds the new cluster.\n\
         2. Compare with what other systems know (for channels: the blockchain) before payments are accepted.\n\
         3. On each other machine remove the whole data directory of its replica, and start it with the same file, without --bootstrap too.\n\
         4. Keep the old directory until you are sure, and never start anything on it.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(outcome: &Outcome) -> String {
        match outcome {
            Err(Failure::Usage(error)) => error.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn every_question_wants_its_own_answer() {
        let voter =
            |node| Voter { node, name: format!("n{node}"), peer_address: String::new(), is_survivor: node == 3 };
        let case =
            Case { cluster: ClusterId(77), end: End { term: 4, index: 1234 }, voters: (1..=3).map(voter).collect() };
        let is_majority_lost = |lost: &BTreeSet<u64>| (1..=3).filter(|id| !lost.contains(id)).count() < 2;
        let (end, cluster) = ("4 1234".to_owned(), case.cluster.to_string());
        let ask = |lines: [&str; 3]| {
            let (text, mut questions) = (lines.join("\n"), Vec::new());
            let asked =
                case.ask(&is_majority_lost, &mut text.as_bytes(), &mut |question| questions.push(question.to_owned()));
            (asked, questions.len())
        };
        assert!(matches!(ask(["n1 n2", &end, &cluster]), (Ok(()), 3)));
        assert!(matches!(ask([" n2,n1 ", &end, &cluster]), (Ok(()), 3)));
        for (lines, asked, why) in [
            (["n1", &*end, &*cluster], 1, "the others are a majority"),
            (["", &end, &cluster], 1, "the others are a majority"),
            (["n1 n2 n3", &end, &cluster], 1, "whose disk is here"),
            (["n1 n9", &end, &cluster], 1, "no voter `n9`"),
            (["n1 n2", "yes", &cluster], 2, "ends with"),
            (["n1 n2", "", &cluster], 2, "ends with"),
            (["n1 n2", &end, "yes"], 3, "not the id of the cluster"),
            (["n1 n2", &end, ""], 3, "not the id of the cluster"),
        ] {
            let (outcome, questions) = ask(lines);
            assert_eq!(questions, asked, "{lines:?}");
            assert!(told(&outcome).contains(why) && told(&outcome).contains("nothing was changed"), "{outcome:?}");
        }
    }
}
