//! What this node reads from the network and from its disk, made of what was written: docs/decisions/0024-fuzzing.md. The log has its own,
//! `log/tests/fuzz.rs`, since its checksums are its secret.
//!
//! What is taken is written again, and has to be the same bytes: one value has one encoding.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::FutureExt;
use openraft::{
    EntryPayload,
    alias::CommittedLeaderIdOf,
    raft::{
        AppendEntriesRequest, StreamAppendError, TransferLeaderError, TransferLeaderRequest, VoteRequest, VoteResponse,
    },
};
use storage_core::Key;
use storage_testkit::fuzz::fuzz;

use crate::{
    codec::Decoded,
    command::{Applied, Command},
    disk::Disk,
    mvcc::LeaseLife,
    network::{
        frame::{FrameReader, put_frame},
        hello::{Channel, Hello},
        message::{self, Call, ControlRequest, MembershipChange, Reply, SnapshotHeader, Standing},
    },
    raft::{self, Entry, LogId, Member, Membership, Proposal, SnapshotMeta, StoredMembership, TypeConfig, Vote},
    simulated::SimDisk,
    snapshot::SnapshotStore,
    state_machine::State,
    tables::Tables,
};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Files of the golden records, by the end of their names.
fn files(end: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(golden()).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| file.to_str().unwrap().ends_with(end)).collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

/// The encoded commands, one of each kind.
fn commands() -> Vec<Vec<u8>> {
    let bytes = |hex: &[u8]| {
        let hex = std::str::from_utf8(hex).unwrap().trim().to_owned();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    files(".hex").iter().map(|hex| bytes(hex)).collect()
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(term), index)
}

fn members() -> Membership {
    let member = |id: u64| Member { name: format!("n{id}"), peer_address: format!("h{id}:1"), client_url: "u".into() };
    let nodes = BTreeMap::from([1, 2, 3].map(|id| (id, member(id))));
    Membership::new(vec![[1].into(), [1, 2].into()], nodes).unwrap()
}

fn entries() -> Vec<Entry> {
    let command = Bytes::from(commands().swap_remove(0));
    let payloads = [EntryPayload::Blank, EntryPayload::Normal(Proposal(command)), EntryPayload::Membership(members())];
    (7..).zip(payloads).map(|(index, payload)| Entry { log_id: log_id(3, index), payload }).collect()
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// A target that takes what `read` takes, and asserts that it is written as it came.
fn canonical<T>(
    read: impl Fn(Bytes) -> Decoded<T>,
    write: impl Fn(&T, &mut Vec<u8>),
) -> impl FnMut(&[u8]) -> Result<String, String> {
    move |input| {
        let value = read(Bytes::copy_from_slice(input)).map_err(|error| error.to_string())?;
        assert!(written(|out| write(&value, out)) == input, "one value has two encodings");
        Ok(String::new())
    }
}

pub(crate) fn greetings(cluster: u128, to: u64) -> Vec<Vec<u8>> {
    let hello = |channel| Hello { cluster, from: 2, to, channel, origin: 0, has_run: true, claim: Default::default() };
    let hellos = [Channel::Control, Channel::Calls, Channel::Founding].map(hello);
    hellos.iter().map(|hello| written(|out| hello.encode(&[5; 32], out))).collect()
}

#[test]
fn fuzz_frames_and_greetings() {
    let frames = written(|out| {
        put_frame(out, |out| out.extend_from_slice(b"first"));
        put_frame(out, |out| out.extend_from_slice(&[7; 100]));
    });
    fuzz("frames", [frames], |input| {
        let mut bytes = input.to_vec();
        mend_frames(&mut bytes);
        let mut reader = FrameReader::new(&bytes[..], 4096);
        while let Some(frame) =
            reader.next().now_or_never().expect("bytes are there").map_err(|error| error.to_string())?
        {
            assert!(frame.len() <= 4096);
        }
        Ok(String::new())
    });
    let write = |(hello, challenge): &(Hello, [u8; 32]), out: &mut Vec<u8>| hello.encode(challenge, out);
    fuzz("greetings", greetings(9, 1), canonical(Hello::decode, write));
}

/// The length of a frame is believed, and its checksum made right.
fn mend_frames(bytes: &mut [u8]) {
    let mut rest = bytes;
    while let Some((header, behind)) = rest.split_first_chunk_mut::<8>() {
        let length = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
        let Some((payload, behind)) = behind.split_at_mut_checked(length) else { return };
        header[4..].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        rest = behind;
    }
}

/// What is asked in the name of this node, at the most once of each kind.
pub(crate) const SAMPLES_ARE_OF: u64 = 2;

fn append(entries: Vec<Entry>) -> AppendEntriesRequest<TypeConfig> {
    let (prev_log_id, leader_commit) = (Some(log_id(3, 6)), Some(log_id(3, 5)));
    AppendEntriesRequest { vote: Vote::new_committed(3, SAMPLES_ARE_OF), prev_log_id, entries, leader_commit }
}

pub(crate) fn control_requests() -> Vec<Vec<u8>> {
    let (asked, led) = (Vote::new(3, SAMPLES_ARE_OF), Vote::new_committed(3, SAMPLES_ARE_OF));
    let control = [
        ControlRequest::Vote(VoteRequest::new(asked, None)),
        ControlRequest::PreVote(VoteRequest::new(asked, Some(log_id(2, 9)))),
        ControlRequest::Heartbeat(append(Vec::new())),
        ControlRequest::TransferLeader(TransferLeaderRequest::new(led, 1, Some(log_id(3, 9)))),
    ];
    control.iter().map(|request| written(|out| request.encode(out))).collect()
}

pub(crate) fn append_requests() -> Vec<Vec<u8>> {
    let appends = [append(Vec::new()), append(entries())];
    appends.iter().map(|request| written(|out| message::put_append_request(out, request))).collect()
}

/// Without changes of the members.
pub(crate) fn calls() -> Vec<Vec<u8>> {
    let write = commands().into_iter().map(|command| Call::Write(command.into()));
    let calls = write.chain([Call::ReadIndex, Call::Lease { id: 7, renew: true }]);
    calls.map(|call| written(|out| message::put_call(out, 5, &call))).collect()
}

pub(crate) fn snapshot_headers() -> Vec<Vec<u8>> {
    let last_membership = StoredMembership::new(Some(log_id(1, 1)), members());
    let meta = SnapshotMeta { last_log_id: Some(log_id(3, 9)), last_membership };
    vec![written(|out| SnapshotHeader { vote: Vote::new_committed(3, SAMPLES_ARE_OF), meta }.encode(out))]
}

pub(crate) fn state_hash_requests() -> Vec<Vec<u8>> {
    vec![written(|out| message::put_state_hash_request(out, 7))]
}

#[test]
fn fuzz_what_nodes_ask_each_other() {
    fuzz("control", control_requests(), canonical(ControlRequest::decode, ControlRequest::encode));
    let write =
        |request: &AppendEntriesRequest<TypeConfig>, out: &mut Vec<u8>| message::put_append_request(out, request);
    fuzz("appends", append_requests(), canonical(message::append_request, write));

    let member = Member { name: "n".into(), peer_address: "h:1".into(), client_url: "u".into() };
    let changes = [
        MembershipChange::AddLearner { id: 4, member },
        MembershipChange::Promote(vec![1, 2]),
        MembershipChange::PromoteInSync(3),
        MembershipChange::Readdress { id: 3, peer_address: "h:2".into() },
        MembershipChange::Remove(vec![3]),
        MembershipChange::TransferLeadership(2),
    ];
    let changes = changes.map(|change| written(|out| message::put_call(out, 5, &Call::Change(change))));
    let calls = calls().into_iter().chain(changes);
    let write = |(number, call): &(u64, Call), out: &mut Vec<u8>| message::put_call(out, *number, call);
    fuzz("calls", calls, canonical(message::call, write));

    fuzz("snapshot header", snapshot_headers(), canonical(SnapshotHeader::decode, SnapshotHeader::encode));
    let write = |index: &u64, out: &mut Vec<u8>| message::put_state_hash_request(out, *index);
    fuzz("state hash", state_hash_requests(), canonical(message::state_hash_request, write));
}

#[test]
fn fuzz_what_nodes_answer() {
    let vote = Vote::new_committed(3, 2);
    let votes = [VoteResponse::new(vote, Some(log_id(3, 9)), true), VoteResponse::new(vote, None, false)];
    let votes = votes.iter().map(|response| written(|out| message::put_vote_response(out, response)));
    let write = |response: &VoteResponse<TypeConfig>, out: &mut Vec<u8>| message::put_vote_response(out, response);
    fuzz("votes", votes, canonical(message::vote_response, write));
    let appended = [
        Ok(None),
        Ok(Some(log_id(3, 9))),
        Err(StreamAppendError::Conflict(log_id(3, 9))),
        Err(StreamAppendError::HigherVote(vote)),
    ];
    let appended = appended.iter().map(|result| written(|out| message::put_append_result(out, result)));
    fuzz(
        "appended",
        appended,
        canonical(message::append_result, |result, out| message::put_append_result(out, result)),
    );
    let transfers = [
        Ok(()),
        Err(TransferLeaderError::VoteChanged { expected: vote, actual: Vote::new(4, 1) }),
        Err(TransferLeaderError::LogNotFlushed { expected: Some(log_id(3, 9)), actual: None }),
    ];
    let transfers = transfers.iter().map(|result| written(|out| message::put_transfer_response(out, result)));
    let write = |response: &_, out: &mut Vec<u8>| message::put_transfer_response(out, response);
    fuzz("transfers", transfers, canonical(message::transfer_response, write));
    let life = LeaseLife { granted_seconds: 30, left_millis: 7 };
    let replies = [
        Reply::Applied { index: 9, applied: Applied::Nothing },
        Reply::ReadIndex(7),
        Reply::Lease(Some(life)),
        Reply::Lease(None),
        Reply::Changed,
        Reply::NotLeader,
        Reply::Undecided,
        Reply::Refused("why".into()),
        Reply::Changing,
    ];
    // What each command answers, on the state that the others have made.
    let mut state = State::default();
    let applied = (1..).zip(commands()).map(|(index, command)| {
        let applied = state.apply_decoded(index, Command::decode(command.into()));
        Reply::Applied { index, applied }
    });
    let replies: Vec<_> = replies.into_iter().chain(applied).collect();
    let replies = replies.iter().map(|reply| written(|out| message::put_reply(out, 5, reply)));
    let write = |(number, reply): &(u64, Reply), out: &mut Vec<u8>| message::put_reply(out, *number, reply);
    fuzz("replies", replies, canonical(message::reply, write));
    let hashes = [None, Some(7)].map(|hash| written(|out| message::put_state_hash(out, hash)));
    fuzz("state hashes", hashes, |input| {
        message::state_hash(Bytes::copy_from_slice(input)).map(|_| String::new()).map_err(|error| error.to_string())
    });
    let standing = written(|out| Standing { phase: crate::log::Phase::decode(1).unwrap(), origin: 7 }.encode(out));
    fuzz("standing", [standing], canonical(Standing::decode, |standing, out| standing.encode(out)));
}

#[test]
fn fuzz_entries_and_members() {
    let samples = entries().iter().map(|entry| written(|out| raft::put_entry(out, entry))).collect::<Vec<_>>();
    fuzz("entries", samples, canonical(raft::entry, |entry, out| raft::put_entry(out, entry)));
    let stored = StoredMembership::new(Some(log_id(1, 1)), members());
    let samples =
        [stored, StoredMembership::default()].map(|stored| written(|out| raft::put_stored_membership(out, &stored)));
    let read = |bytes| {
        let mut reader = crate::codec::Reader::new(bytes);
        let stored = raft::stored_membership(&mut reader)?;
        reader.end().map(|()| stored)
    };
    fuzz("members", samples, canonical(read, |stored, out| raft::put_stored_membership(out, stored)));
}

/// Two replicas apply what an entry says, whatever it is: they answer the same, are the same, and go on.
#[test]
fn fuzz_commands() {
    let mut base = State::default();
    for round in 0..3 {
        for (index, command) in (1..).zip(commands()) {
            base.apply_decoded(round * 100 + index, Command::decode(command.into()));
        }
    }
    fuzz("commands", commands(), |input| {
        let command = Command::decode(Bytes::copy_from_slice(input));
        let refused = command.as_ref().err().map(ToString::to_string);
        if let Ok(command) = &command {
            assert!(command.encode() == input, "one command has two encodings");
        }
        let (mut one, mut other) = (base.clone(), base.clone());
        let answer = one.apply_decoded(1000, command);
        assert_eq!(other.apply_decoded(1000, Command::decode(Bytes::copy_from_slice(input))), answer);
        assert_eq!(one.tables().digest(), other.tables().digest(), "two replicas parted");
        let encoded = written(|out| answer.encode(out));
        assert_eq!(Applied::decode(encoded.into()).unwrap(), answer);
        match (refused, answer) {
            (Some(refused), _) => Err(refused),
            (None, Applied::Rejected(rejection)) => Ok(rejection.to_string()),
            (None, _) => Ok(String::new()),
        }
    });
}

const DIR: &str = "/snapshots";

/// The tables that a snapshot of these bytes makes, as it is loaded at a start.
fn loaded(bytes: &[u8]) -> std::io::Result<(SnapshotMeta, Tables)> {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new(DIR))?;
    let file = disk.create(&Path::new(DIR).join("snapshot-00000000000000000009-00000000000000000003"))?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    let store = SnapshotStore::open(Arc::new(disk), DIR)?;
    let newest = store.newest().expect("a file with the name of a snapshot");
    store.load(&newest.snapshot)
}

fn saved(meta: SnapshotMeta, tables: &Tables) -> Vec<u8> {
    let disk = SimDisk::new(1);
    let store = SnapshotStore::open(Arc::new(disk.clone()), DIR).unwrap();
    store.write(meta, tables, &|| true).unwrap();
    disk.contents().into_values().next().unwrap()
}

#[test]
fn fuzz_snapshots() {
    fuzz("snapshots", files(".snapshot"), |input| {
        let mut bytes = input.to_vec();
        mend_snapshot(&mut bytes);
        let (meta, tables) = loaded(&bytes).map_err(|error| error.to_string().replace(DIR, ""))?;
        // It is a state like any other.
        let again = loaded(&saved(meta, &tables)).unwrap().1;
        assert_eq!(again.digest(), tables.digest(), "a state that does not survive a snapshot");
        let mut state = State::new(tables);
        let key = Key::new("written").unwrap();
        let command = Command::encode_txn(&storage_core::Txn::new().put(key, "1"), None, None);
        drop(state.apply_decoded(u64::MAX, Command::decode(command)));
        Ok(String::new())
    });
}

/// Found by the test above: the next write did not follow, and ended the node.
#[test]
fn a_snapshot_whose_revision_is_not_that_of_its_history_is_refused() {
    let mut state = State::default();
    let put = Command::encode_txn(&storage_core::Txn::new().put(Key::new("a").unwrap(), "1"), None, None);
    (1..4).for_each(|index| drop(state.apply_decoded(index, Command::decode(put.clone()))));
    let mut tables = state.tables().clone();
    assert!(loaded(&saved(SnapshotMeta::default(), &tables)).is_ok());
    for revision in [0, tables.keys.revision - 1, tables.keys.revision + 1, u64::MAX] {
        tables.keys.revision = revision;
        let error = loaded(&saved(SnapshotMeta::default(), &tables)).unwrap_err().to_string();
        assert!(error.contains("does not end at the revision"), "{error}");
    }
}

/// The lengths of the chunks are believed, and their checksums made right.
fn mend_snapshot(bytes: &mut [u8]) {
    let Some((preamble, mut rest)) = bytes.split_at_mut_checked(12) else { return };
    let mut checksum = crc32c::crc32c(preamble);
    while let Some((header, behind)) = rest.split_first_chunk_mut::<8>() {
        let length = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
        let Some((payload, behind)) = behind.split_at_mut_checked(length) else { return };
        checksum = crc32c::crc32c_append(crc32c::crc32c_append(checksum, &header[..4]), payload);
        header[4..].copy_from_slice(&checksum.to_le_bytes());
        rest = behind;
    }
}
