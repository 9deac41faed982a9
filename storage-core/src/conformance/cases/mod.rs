//! The cases, one file a group, and the one list of them.

mod aba;
mod basics;
mod bytes;
mod cas;
mod delete;
mod faults;
mod limits;
mod locks;
mod payment;
mod race;
mod reads;
mod scan;
mod txn;
mod versions;
mod watch;

use super::case::{Case, Kind};

/// Every case of the suite, in the order in which a person would read the contract.
pub static CASES: &[Case] = crate::__conformance_cases!([__registry] []);

/// The one list: calls `$callback` with the given arguments and all groups with their cases.
/// A case may say its [`Kind`], which is `Usual` otherwise.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ([$($callback:tt)+] [$($args:tt)*]) => {
        $($callback)+! { [$($args)*]
            basics {
                get_absent
                put_get
                overwrite
                put_returns_version
                get_many_keeps_order
                get_many_with_duplicates
                get_many_of_nothing
                empty_value_is_present
                fresh_namespaces_are_isolated
                handles_share_the_data
                reopen_persists
                ping_answers
            }
            versions {
                changes_at_each_put
                changes_on_the_same_value
                get_matches_put
                get_many_matches_get
                scan_matches_get
                txn_matches_get
                stable_without_writes
                revisions_rise
            }
            cas {
                succeeds
                stale_conflicts
                absent_key_conflicts
                foreign_version_conflicts
                conflict_leaves_the_value
                conflict_reports_current
                put_if_absent_once
                put_if_absent_after_delete
                exists_guard
                any_guard
                by_value
                by_value_conflicts
                by_value_absent_is_not_empty
            }
            delete {
                absent_is_ok
                unconditional
                guarded
                stale_guard_conflicts
                absent_guard
                twice
                one_of_many
            }
            aba {
                old_version_fails_after_recreate
                put_delete_loop_gives_unique_versions
                restoring_the_same_value_fails
                two_identical_swaps_do_not_both_succeed
            }
            bytes {
                binary_value
                binary_key
                every_single_byte
                slashes
                dots
                unicode
                case
                spaces_percent_question_hash
                escapes_do_not_collide
                parent_and_child_keys
                shared_prefixes
            }
            limits {
                floor_is_declared
                largest_key
                largest_value
                largest_txn
                over_value_rejected_unapplied
                most_txn_ops
                most_txn_guards
                over_txn_ops_unapplied
                over_txn_bytes_unapplied
                most_keys_in_get_many
                over_get_many_rejected
            }
            scan {
                nothing
                lexicographic
                prefix_1_is_not_10
                prefix_0xff
                empty_prefix
                pages_cover_all
                exact_page
                limit_of_one
                start_outside_of_the_prefix
                resume_after_deleted
                inserts_while_paging
                bad_limit_rejected
                large_values
                ten_thousand_keys = Slow
            }
            txn {
                all_or_nothing
                every_guard_is_checked
                first_failing_guard_is_named
                guard_without_write
                guard_on_another_key
                put_and_delete
                versions_in_order_of_operations
                duplicate_key_rejected
                empty
                read_only_snapshot
                get_many_is_one_point_in_time
                write_skew_prevented
            }
            race {
                n_cas_one_winner
                n_put_if_absent_one_winner
                n_deletes_one_winner
                counter_loses_nothing
                bank_sum_holds
                disjoint_keys_progress
                register_is_linearizable
            }
            reads {
                own_writes
                second_handle_sees
                monotonic
                stale_is_answered
                after_leader_kill = Disruptive
                minority_never_serves = Disruptive
                restart_loses_nothing = Disruptive
            }
            watch {
                last_state_is_seen
                put_and_delete_in_order
                other_handles_are_seen
                prefix_only
                nothing_for_a_conflict
                transaction_shares_a_revision
                continues_a_page
                resume_without_gap
                compacted_is_reported = Disruptive
                drop_stops
                close_ends_it
            }
            locks {
                exclusive
                critical_sections_do_not_overlap
                ttl_frees_after_crash
                token_increases
                stale_holder_is_fenced
                foreign_release_rejected
                loss_is_signalled
            }
            payment {
                same_payment_on_two_replicas_once
                lower_amount_rejected
                claim_against_payment
                claim_crash_is_atomic
                crashed_holder_recovers
            }
            faults {
                invalid_key
                closed_handle
                closed_twice
                short_deadline_honoured
                short_deadline_tells_the_truth
                endless_deadline_is_no_fault
                cancelled_commit_is_whole
                same_operation_id_once
                different_operation_ids_each
                lost_reply_is_unknown = Disruptive
                lost_reply_is_resolved_by_its_id = Disruptive
                unavailable_is_unapplied = Disruptive
                deadline_honoured_in_outage = Disruptive
            }
        }
    };
}

/// Makes the list of [`CASES`].
macro_rules! __registry {
    ([] $($group:ident { $($case:ident $(= $kind:ident)?)* })*) => {
        &[$($(Case {
            group: stringify!($group),
            name: stringify!($case),
            kind: __kind!($($kind)?),
            run: |context| Box::pin($group::$case(context)),
        },)*)*]
    };
}

macro_rules! __kind {
    () => {
        Kind::Usual
    };
    ($kind:ident) => {
        Kind::$kind
    };
}

use {__kind, __registry};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let names: HashSet<_> = CASES.iter().map(Case::to_string).collect();
        assert_eq!(names.len(), CASES.len());
        assert!(CASES.len() >= 85, "{} cases", CASES.len());
    }
}
