//! Each defect with the cases that have to catch it: at least those that are about it.

use std::sync::Arc;

use storage_core::{
    Conflict, Entry, Error, Expected, Key, Observed, Op, OperationId, Outcome, Revision, ScanOptions, Txn, Version,
    WatchEvent, WatchOptions,
};

use crate::{Row, defects::*, harness::Accident, shapes::*};

pub(crate) const MUTANTS: &[Row] = &[
    // Guards.
    Row(
        "ignores guards",
        || Arc::new(Commits(|txn| Txn { guards: vec![], ..txn })),
        &[
            "cas::absent_key_conflicts",
            "locks::foreign_release_rejected",
            "locks::loss_is_signalled",
            "cas::conflict_leaves_the_value",
            "cas::put_if_absent_once",
            "cas::exists_guard",
        ],
    ),
    Row("checks the first guard only", || Arc::new(Commits(first_guard)), &["txn::every_guard_is_checked"]),
    Row("names the last failing guard", || Arc::new(Answers(last_guard)), &["txn::first_failing_guard_is_named"]),
    Row(
        "ignores guards on keys that are not written",
        || Arc::new(Commits(written_guards)),
        &[
            "locks::stale_holder_is_fenced",
            "payment::crashed_holder_recovers",
            "txn::guard_on_another_key",
            "txn::guard_without_write",
            "txn::read_only_snapshot",
            "txn::write_skew_prevented",
        ],
    ),
    Row(
        "takes any version for the current one",
        || Arc::new(Commits(|txn| expecting(txn, any_version))),
        &["cas::stale_conflicts", "aba::restoring_the_same_value_fails"],
    ),
    Row(
        "lets a version hold for an absent key",
        || Arc::new(Commits(|txn| expecting(txn, absent_version))),
        &["cas::foreign_version_conflicts"],
    ),
    Row("never lets a version hold", || Arc::new(Commits(|txn| expecting(txn, no_version))), &["cas::succeeds"]),
    Row(
        "overwrites what has to be absent",
        || Arc::new(Commits(|txn| expecting(txn, absent_is_any))),
        &["cas::put_if_absent_once"],
    ),
    Row(
        "lets a key exist that does not",
        || Arc::new(Commits(|txn| expecting(txn, exists_is_any))),
        &["cas::exists_guard"],
    ),
    Row("takes any for exists", || Arc::new(Commits(|txn| expecting(txn, any_is_exists))), &["cas::any_guard"]),
    Row("compares no values", || Arc::new(Commits(|txn| expecting(txn, any_value))), &["cas::by_value_conflicts"]),
    Row("finds no value equal", || Arc::new(Commits(|txn| expecting(txn, no_value))), &["cas::by_value"]),
    Row(
        "takes absent for an empty value",
        || Arc::new(Commits(|txn| expecting(txn, empty_is_absent))),
        &["cas::by_value_absent_is_not_empty"],
    ),
    Row("counts tombstones as present", || Arc::new(TombstonesExist::default()), &["cas::put_if_absent_after_delete"]),
    Row(
        "reports nothing of what it saw",
        || Arc::new(Answers(|_, o| reporting(o, |_| Observed::Unknown))),
        &["cas::conflict_reports_current"],
    ),
    Row(
        "reports absent whatever it saw",
        || Arc::new(Answers(|_, o| reporting(o, |_| Observed::Absent))),
        &["cas::conflict_reports_current"],
    ),
    Row(
        "neither reads nor guards",
        || Arc::new(Blind),
        &["locks::exclusive", "locks::token_increases", "locks::ttl_frees_after_crash"],
    ),
    // What is written.
    Row("applies half of a refused transaction", || Arc::new(AppliesHalf), &["txn::all_or_nothing"]),
    Row(
        "checks, then writes",
        || Arc::new(ChecksThenWrites),
        &[
            "race::n_put_if_absent_one_winner",
            "race::counter_loses_nothing",
            "race::bank_sum_holds",
            "race::register_is_linearizable",
            "locks::critical_sections_do_not_overlap",
            "payment::same_payment_on_two_replicas_once",
            "payment::lower_amount_rejected",
            "payment::claim_against_payment",
            "race::n_cas_one_winner",
        ],
    ),
    Row("has one writer at a time", || Arc::new(OneWriterAtATime::default()), &["race::disjoint_keys_progress"]),
    Row(
        "writes in steps",
        || Arc::new(WritesInSteps),
        &["payment::claim_crash_is_atomic", "faults::cancelled_commit_is_whole"],
    ),
    Row(
        "accepts anything",
        || Arc::new(AcceptsAnything),
        &[
            "limits::over_value_rejected_unapplied",
            "limits::over_txn_ops_unapplied",
            "limits::over_txn_bytes_unapplied",
            "limits::over_get_many_rejected",
            "scan::bad_limit_rejected",
            "txn::duplicate_key_rejected",
            "txn::empty",
        ],
    ),
    Row("applies no deletes beside puts", || Arc::new(Commits(no_deletes_beside_puts)), &["txn::put_and_delete"]),
    Row("applies no deletes", || Arc::new(Commits(no_deletes)), &["delete::unconditional"]),
    Row(
        "deletes whatever the guards say",
        || Arc::new(Commits(unguarded_deletes)),
        &["delete::stale_guard_conflicts", "delete::absent_guard", "delete::twice", "race::n_deletes_one_winner"],
    ),
    Row("refuses guarded deletes", || Arc::new(Refuses(|t| deletes(t) && !t.guards.is_empty())), &["delete::guarded"]),
    Row("wants a key that it deletes to exist", || Arc::new(Commits(deletes_existing)), &["delete::absent_is_ok"]),
    Row("deletes what is below", || Arc::new(DeletesBelow), &["delete::one_of_many", "bytes::parent_and_child_keys"]),
    Row(
        "deletes a key whose value is empty",
        || Arc::new(Commits(|txn| mapping(txn, empty_deletes))),
        &["basics::empty_value_is_present"],
    ),
    Row("keeps the first value", || Arc::new(Commits(keeps_first)), &["basics::overwrite"]),
    Row("keeps text only", || Arc::new(Commits(|txn| mapping(txn, lossy_value))), &["bytes::binary_value"]),
    Row("writes keys that it looks at", || Arc::new(LookingWrites), &["versions::stable_without_writes"]),
    // Limits.
    Row("declares too little", || Arc::new(Declares(|c| c.max_txn_ops = 16)), &["limits::floor_is_declared"]),
    Row(
        "declares more operations than it takes",
        || Arc::new(Refuses(|t| t.ops.len() > 100)),
        &["limits::most_txn_ops"],
    ),
    Row(
        "declares more guards than it takes",
        || Arc::new(Refuses(|t| t.guards.len() > 40)),
        &["limits::most_txn_guards"],
    ),
    Row(
        "takes no values of the size it declares",
        || Arc::new(Refuses(|t| bytes(t) > 900_000)),
        &["limits::largest_value"],
    ),
    Row(
        "takes no transaction of the size it declares",
        || Arc::new(Refuses(|t| bytes(t) > 3_000_000)),
        &["limits::largest_txn"],
    ),
    Row(
        "takes no long keys",
        || Arc::new(Refuses(|t| t.ops.iter().any(|op| op.key().as_bytes().len() > 255))),
        &["limits::largest_key"],
    ),
    Row(
        "reads 64 keys at once at the most",
        || {
            Arc::new(Many(
                |keys, entries| if keys.len() > 64 { Err(Error::invalid_argument("too many")) } else { Ok(entries) },
            ))
        },
        &["limits::most_keys_in_get_many"],
    ),
    // Versions.
    Row(
        "counts versions anew after a delete",
        || Arc::new(CountsVersions::restarting()),
        &["aba::put_delete_loop_gives_unique_versions", "aba::old_version_fails_after_recreate"],
    ),
    Row(
        "keeps the version when it keeps the value",
        || Arc::new(CountsVersions::keeping()),
        &["aba::two_identical_swaps_do_not_both_succeed", "versions::changes_on_the_same_value"],
    ),
    Row(
        "answers with another version",
        || Arc::new(Answers(|_, o| versions(o, |v| v.fill(Some(Version::from_u64(7)))))),
        &[
            "versions::changes_at_each_put",
            "versions::get_matches_put",
            "versions::txn_matches_get",
            "basics::put_returns_version",
        ],
    ),
    Row(
        "answers with versions in another order",
        || Arc::new(Answers(|_, o| versions(o, |v| v.reverse()))),
        &["txn::versions_in_order_of_operations"],
    ),
    Row("stands still", || Arc::new(StandsStill), &["versions::revisions_rise"]),
    Row(
        "scans other versions",
        || {
            Arc::new(Pages(|_, _, mut page| {
                for e in &mut page.entries {
                    e.version = Version::from_u64(7)
                }
                page
            }))
        },
        &["versions::scan_matches_get"],
    ),
    Row(
        "reads other versions of several keys",
        || {
            Arc::new(Many(|_, mut all| {
                for e in all.iter_mut().flatten() {
                    e.version = Version::from_u64(7)
                }
                Ok(all)
            }))
        },
        &["versions::get_many_matches_get"],
    ),
    // Reads.
    Row(
        "finds what is absent",
        || {
            Arc::new(Reads(|key, e| {
                e.or(Some(Entry { key: key.clone(), value: "".into(), version: Version::from_u64(1) }))
            }))
        },
        &["basics::get_absent"],
    ),
    Row(
        "reads several keys in their own order",
        || {
            Arc::new(Many(|_, mut all| {
                all.sort_by_key(|e| e.as_ref().map(|e| e.key.clone()));
                Ok(all)
            }))
        },
        &["basics::get_many_keeps_order"],
    ),
    Row(
        "reads each key once",
        || {
            Arc::new(Many(|_, mut all| {
                all.dedup();
                all.sort_by_key(|e| e.as_ref().map(|e| e.key.clone()));
                all.dedup();
                Ok(all)
            }))
        },
        &["basics::get_many_with_duplicates"],
    ),
    Row(
        "refuses to read nothing",
        || Arc::new(Many(|keys, all| if keys.is_empty() { Err(Error::invalid_argument("no keys")) } else { Ok(all) })),
        &["basics::get_many_of_nothing"],
    ),
    Row("reads several keys in steps", || Arc::new(ReadsInSteps), &["txn::get_many_is_one_point_in_time"]),
    Row(
        "caches reads",
        || Arc::new(CachesReads::default()),
        &["basics::handles_share_the_data", "reads::monotonic", "reads::second_handle_sees"],
    ),
    Row("reads late", || Arc::new(ReadsLate::default()), &["basics::put_get", "reads::own_writes"]),
    Row("stays stale", || Arc::new(StaysStale), &["reads::stale_is_answered"]),
    Row("writes when it is pinged", || Arc::new(PingWrites), &["basics::ping_answers"]),
    // Namespaces and servers.
    Row("shares namespaces", || Arc::new(SharesNamespaces), &["basics::fresh_namespaces_are_isolated"]),
    Row("forgets when it is closed", || Arc::new(Loses(Accident::Reopen)), &["basics::reopen_persists"]),
    Row("forgets when it restarts", || Arc::new(Loses(Accident::Restart)), &["reads::restart_loses_nothing"]),
    Row("forgets when its leader dies", || Arc::new(Loses(Accident::LeaderKill)), &["reads::after_leader_kill"]),
    Row("serves in a minority", || Arc::new(SplitBrain), &["reads::minority_never_serves"]),
    // Keys.
    Row("folds the case of keys", || Arc::new(Keys(|k| k.to_ascii_lowercase())), &["bytes::case"]),
    Row("cleans slashes", || Arc::new(Keys(clean_slashes)), &["bytes::slashes"]),
    Row("resolves dots", || Arc::new(Keys(resolve_dots)), &["bytes::dots"]),
    Row(
        "cuts keys at a NUL",
        || Arc::new(Keys(|k| k.split(|b| *b == 0).next().unwrap().to_vec())),
        &["bytes::binary_key"],
    ),
    Row(
        "clears the high bit",
        || Arc::new(Keys(|k| k.iter().map(|b| b & 0x7f).collect())),
        &["bytes::every_single_byte"],
    ),
    Row(
        "keeps text keys only",
        || Arc::new(Keys(|k| String::from_utf8_lossy(k).trim_start_matches('\u{feff}').trim().as_bytes().to_vec())),
        &["bytes::unicode"],
    ),
    Row("decodes percents", || Arc::new(Keys(decode_percents)), &["bytes::spaces_percent_question_hash"]),
    Row("escapes without escaping its escape", || Arc::new(Keys(escape_slash)), &["bytes::escapes_do_not_collide"]),
    Row("cuts long keys", || Arc::new(Keys(|k| k[..k.len().min(210)].to_vec())), &["bytes::shared_prefixes"]),
    // Scans.
    Row(
        "scans backwards",
        || {
            Arc::new(Pages(|_, _, mut page| {
                page.entries.reverse();
                page
            }))
        },
        &["scan::lexicographic"],
    ),
    Row(
        "takes a prefix for a folder",
        || {
            Arc::new(Pages(|prefix, _, mut page| {
                page.entries.retain(|e| in_folder(prefix, &e.key));
                page
            }))
        },
        &["scan::prefix_1_is_not_10"],
    ),
    Row(
        "ends a prefix at its last byte plus one",
        || Arc::new(Scans(|prefix, o| (prefix.last() != Some(&0xff)).then(|| (prefix.to_vec(), o)))),
        &["scan::prefix_0xff"],
    ),
    Row(
        "finds nothing with the empty prefix",
        || Arc::new(Scans(|prefix, o| (!prefix.is_empty()).then(|| (prefix.to_vec(), o)))),
        &["scan::empty_prefix"],
    ),
    Row(
        "finds what is near",
        || Arc::new(Scans(|prefix, o| Some((prefix[..prefix.len().saturating_sub(1)].to_vec(), o)))),
        &["scan::nothing"],
    ),
    Row(
        "loses the last entry of a full page",
        || {
            Arc::new(Pages(|_, o, mut page| {
                if page.next.is_none() && page.entries.len() == o.limit {
                    page.entries.pop();
                }
                page
            }))
        },
        &["scan::exact_page"],
    ),
    Row(
        "always ends after a page",
        || {
            Arc::new(Pages(|_, _, mut page| {
                page.next = None;
                page
            }))
        },
        &["scan::pages_cover_all", "scan::ten_thousand_keys"],
    ),
    Row(
        "begins again at every page",
        || Arc::new(Scans(|prefix, o| Some((prefix.to_vec(), ScanOptions { after: None, ..o })))),
        &["scan::limit_of_one"],
    ),
    Row(
        "starts only inside of a prefix",
        || {
            Arc::new(Scans(|prefix, o| {
                o.after.as_ref().is_none_or(|after| after.starts_with(prefix)).then(|| (prefix.to_vec(), o))
            }))
        },
        &["scan::start_outside_of_the_prefix"],
    ),
    Row("loses its place", || Arc::new(LosesItsPlace), &["scan::resume_after_deleted"]),
    Row("scans a snapshot", || Arc::new(ScansASnapshot::default()), &["scan::inserts_while_paging"]),
    Row("answers four megabytes at the most", || Arc::new(Pages(four_megabytes)), &["scan::large_values"]),
    // Watches.
    Row(
        "sees no deletes",
        || Arc::new(Events(|e| Some(e).filter(|e| matches!(e, WatchEvent::Put { .. })))),
        &["watch::last_state_is_seen", "watch::put_and_delete_in_order"],
    ),
    Row("reorders events", || Arc::new(Reorders), &["watch::put_and_delete_in_order"]),
    Row("watches everything", || Arc::new(Watches(|_, o| (vec![], o))), &["watch::prefix_only"]),
    Row("tells of conflicts", || Arc::new(TellsOfConflicts::default()), &["watch::nothing_for_a_conflict"]),
    Row(
        "numbers the events of a transaction",
        || {
            Arc::new(Events(|e| {
                Some(match e {
                    WatchEvent::Delete { key, revision } => {
                        WatchEvent::Delete { key, revision: revision.map(|r| Revision(r.0 + 1)) }
                    }
                    e => e,
                })
            }))
        },
        &["watch::transaction_shares_a_revision"],
    ),
    Row(
        "resumes with a gap",
        || Arc::new(Watches(|p, o| (p.to_vec(), WatchOptions { after: o.after.map(|r| Revision(r.0 + 1)), ..o }))),
        &["watch::resume_without_gap", "watch::continues_a_page"],
    ),
    Row("skips lost history", || Arc::new(SkipsLostHistory), &["watch::compacted_is_reported"]),
    Row("sees its own writes", || Arc::new(SeesOwnWrites::default()), &["watch::other_handles_are_seen"]),
    Row("leaks watches", || Arc::new(LeaksWatches::default()), &["watch::drop_stops"]),
    Row("watches after it was closed", || Arc::new(WatchesOutlive), &["watch::close_ends_it"]),
    // Faults.
    Row("never closes", || Arc::new(NeverCloses), &["faults::closed_handle"]),
    Row("closes once", || Arc::new(ClosesOnce), &["faults::closed_twice"]),
    Row("ignores deadlines", || Arc::new(IgnoresDeadlines), &["faults::short_deadline_honoured"]),
    Row("has no endless deadline", || Arc::new(HasNoEndlessDeadline), &["faults::endless_deadline_is_no_fault"]),
    Row("waits out outages", || Arc::new(WaitsOutOutages), &["faults::deadline_honoured_in_outage"]),
    Row("gives up after sending", || Arc::new(GivesUpAfterSending), &["faults::short_deadline_tells_the_truth"]),
    Row(
        "calls an unknown outcome unavailable",
        || Arc::new(CallsUnknownUnavailable),
        &["faults::lost_reply_is_unknown", "faults::unavailable_is_unapplied"],
    ),
    Row(
        "does not deduplicate",
        || Arc::new(MapsIds(|_| None)),
        &["faults::same_operation_id_once", "faults::lost_reply_is_resolved_by_its_id"],
    ),
    Row(
        "cuts operation ids",
        || Arc::new(MapsIds(|id| id.map(|id| OperationId(id.0 & u128::from(u64::MAX))))),
        &["faults::different_operation_ids_each"],
    ),
    Row(
        "takes one operation id for all",
        || Arc::new(MapsIds(|id| id.map(|_| OperationId(1)))),
        &["faults::different_operation_ids_each"],
    ),
    // What is not declared has to be refused.
    Row(
        "takes operation ids undeclared",
        || Arc::new(Floor { takes_ids: true, ..Floor::default() }),
        &["faults::same_operation_id_once"],
    ),
    Row("resumes undeclared", || Arc::new(Floor { resumes: true, ..Floor::default() }), &["watch::resume_without_gap"]),
    Row(
        "reveals revisions undeclared",
        || Arc::new(Floor { reveals_revisions: true, ..Floor::default() }),
        &["versions::revisions_rise"],
    ),
];

fn first_guard(txn: Txn) -> Txn {
    Txn { guards: txn.guards.into_iter().take(1).collect(), ..txn }
}

fn written_guards(mut txn: Txn) -> Txn {
    let Txn { guards, ops } = &mut txn;
    guards.retain(|guard| ops.iter().any(|op| *op.key() == guard.key));
    txn
}

fn last_guard(txn: &Txn, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Conflict(conflict) => Outcome::Conflict(Conflict { guard: txn.guards.len() - 1, ..conflict }),
        committed => committed,
    }
}

fn expecting(mut txn: Txn, map: fn(Expected) -> Expected) -> Txn {
    for guard in &mut txn.guards {
        guard.expected = map(guard.expected.clone());
    }
    txn
}

fn any_version(expected: Expected) -> Expected {
    if matches!(expected, Expected::Version(_)) { Expected::Exists } else { expected }
}

fn absent_version(expected: Expected) -> Expected {
    if expected == Expected::Version(Version::from_u64(0)) { Expected::Absent } else { expected }
}

fn no_version(expected: Expected) -> Expected {
    if matches!(expected, Expected::Version(_)) { Expected::Version(Version::from_u64(u64::MAX)) } else { expected }
}

fn absent_is_any(expected: Expected) -> Expected {
    if expected == Expected::Absent { Expected::Any } else { expected }
}

fn exists_is_any(expected: Expected) -> Expected {
    if expected == Expected::Exists { Expected::Any } else { expected }
}

fn any_is_exists(expected: Expected) -> Expected {
    if expected == Expected::Any { Expected::Exists } else { expected }
}

fn any_value(expected: Expected) -> Expected {
    if matches!(expected, Expected::Value(_)) { Expected::Exists } else { expected }
}

fn no_value(expected: Expected) -> Expected {
    if matches!(expected, Expected::Value(_)) { Expected::Value("nothing equals this".into()) } else { expected }
}

fn empty_is_absent(expected: Expected) -> Expected {
    if expected == Expected::Value("".into()) { Expected::Absent } else { expected }
}

fn reporting(outcome: Outcome, map: fn(Observed) -> Observed) -> Outcome {
    match outcome {
        Outcome::Conflict(conflict) => Outcome::Conflict(Conflict { current: map(conflict.current), ..conflict }),
        committed => committed,
    }
}

fn versions(outcome: Outcome, change: fn(&mut Vec<Option<Version>>)) -> Outcome {
    match outcome {
        Outcome::Committed(mut committed) => {
            change(&mut committed.versions);
            Outcome::Committed(committed)
        }
        conflict => conflict,
    }
}

fn is_delete(op: &Op) -> bool {
    matches!(op, Op::Delete { .. })
}

fn deletes(txn: &Txn) -> bool {
    txn.ops.iter().any(is_delete)
}

fn no_deletes(mut txn: Txn) -> Txn {
    txn.ops.retain(|op| !is_delete(op));
    txn
}

fn no_deletes_beside_puts(txn: Txn) -> Txn {
    if txn.ops.iter().all(is_delete) { txn } else { no_deletes(txn) }
}

fn unguarded_deletes(txn: Txn) -> Txn {
    if txn.ops.iter().all(is_delete) && !txn.ops.is_empty() { Txn { guards: vec![], ..txn } } else { txn }
}

fn deletes_existing(mut txn: Txn) -> Txn {
    for op in txn.ops.iter().filter(|op| is_delete(op)) {
        if !txn.guards.iter().any(|guard| guard.key == *op.key()) {
            txn.guards.push(storage_core::Guard { key: op.key().clone(), expected: Expected::Exists });
        }
    }
    txn
}

fn keeps_first(mut txn: Txn) -> Txn {
    if let (true, [Op::Put { key, .. }]) = (txn.guards.is_empty(), &txn.ops[..])
        && key.as_bytes() == b"a"
    {
        txn.ops = vec![Op::Put { key: key.clone(), value: "first and longer".into() }];
    }
    txn
}

fn mapping(mut txn: Txn, map: fn(Op) -> Op) -> Txn {
    txn.ops = txn.ops.into_iter().map(map).collect();
    txn
}

fn empty_deletes(op: Op) -> Op {
    match op {
        Op::Put { key, value } if value.is_empty() => Op::Delete { key },
        op => op,
    }
}

fn lossy_value(op: Op) -> Op {
    match op {
        Op::Put { key, value } => {
            Op::Put { key, value: String::from_utf8_lossy(&value).into_owned().into_bytes().into() }
        }
        op => op,
    }
}

fn bytes(txn: &Txn) -> usize {
    txn.ops.iter().map(|op| if let Op::Put { value, .. } = op { value.len() } else { 0 }).sum()
}

fn clean_slashes(key: &[u8]) -> Vec<u8> {
    let parts: Vec<_> = key.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    parts.join(&b'/')
}

fn resolve_dots(key: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in key.split(|byte| *byte == b'/') {
        match part {
            b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

fn decode_percents(key: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(key).replace("%20", " ").replace("%2F", "/").into_bytes()
}

fn escape_slash(key: &[u8]) -> Vec<u8> {
    key.iter().flat_map(|byte| if *byte == b'/' { b"_2f".to_vec() } else { vec![*byte] }).collect()
}

fn in_folder(prefix: &[u8], key: &Key) -> bool {
    let rest = &key.as_bytes()[prefix.len()..];
    prefix.is_empty() || prefix.ends_with(b"/") || rest.is_empty() || rest.starts_with(b"/")
}

fn four_megabytes(_: &[u8], _: &ScanOptions, mut page: storage_core::Page) -> storage_core::Page {
    let mut left = 4 * 1024 * 1024;
    page.entries.retain(|entry| {
        let fits = entry.value.len() <= left;
        left = left.saturating_sub(entry.value.len());
        fits
    });
    page
}
