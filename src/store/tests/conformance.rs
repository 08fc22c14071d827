//! What holds of every backend. Each case runs on all of them.

mod at_once;
mod cases;
mod restarts;

use tempfile::TempDir;

use crate::api::v1::Object;
use crate::error::Result;
use crate::store::fixtures::{open, transaction};
use crate::store::{Committed, Condition, EtcdOptions, HistoryLimits, Options, Store, Write};
use crate::testing::Etcd;
use crate::time::Clock;

/// Where the store of a case lives. It can be opened again, as after a restart.
pub(super) enum Home {
    Folder(TempDir),
    Etcd(Box<Etcd>),
}

impl Home {
    fn folder() -> Self {
        Home::Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    async fn open(&self) -> Store {
        self.open_with(HistoryLimits::default()).await
    }

    async fn open_with(&self, history: HistoryLimits) -> Store {
        match self {
            Home::Folder(folder) => open(folder.path(), history),
            Home::Etcd(etcd) => {
                let options = Options { history, clock: Clock::system() };
                let opened = Store::etcd(&EtcdOptions::new(etcd.addresses().iter().map(ToString::to_string)), options).await;
                opened.unwrap_or_else(|error| panic!("{error}"))
            }
        }
    }
}

/// Makes a test of each case for each backend.
macro_rules! on_every_backend {
    ($($module:ident::$what_holds_there:ident),* $(,)?) => {
        mod on_a_folder {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $what_holds_there() {
                    super::$module::$what_holds_there(super::Home::folder()).await;
                }
            )*
        }

        mod on_etcd {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $what_holds_there() {
                    let Some(etcd) = super::Etcd::start(&[]).await else { return };
                    super::$module::$what_holds_there(super::Home::Etcd(Box::new(etcd))).await;
                }
            )*
        }
    };
}

on_every_backend! {
    cases::a_transaction_is_one_revision_and_every_object_in_it_carries_it,
    cases::a_snapshot_never_changes_and_is_in_key_order,
    cases::conditions_hold_or_nothing_of_the_transaction_happens,
    cases::what_is_required_may_come_in_the_same_transaction_and_must_not_go_in_it,
    cases::a_transaction_without_writes_is_no_revision,
    cases::what_exceeds_a_limit_is_invalid_and_says_so,
    cases::what_is_within_the_limits_is_taken_however_long_the_names,
    cases::what_is_deleted_counts_against_the_limit_whoever_wrote_it,
    cases::events_stand_alone_with_what_was_before_where_it_differs,
    cases::of_many_who_write_at_once_each_gets_its_own_revision_and_nothing_is_lost,
    cases::of_many_who_create_the_same_object_one_does,
    cases::of_many_who_count_by_compare_and_set_each_counts_once,
    cases::a_transaction_of_many_comparisons_is_done_while_others_write_all_the_time,
    cases::both_backends_answer_the_same_to_the_same_random_transactions,
    at_once::of_many_at_once_each_is_told_what_is_right_in_a_state_that_is_visible_then,
    restarts::a_restart_keeps_state_history_and_cluster_and_revisions_go_on,
    restarts::many_objects_of_all_sizes_are_there_after_a_restart,
    restarts::a_deleted_objects_last_state_is_in_the_history_after_a_restart,
    restarts::after_close_or_kill_commits_are_unavailable_and_the_feed_is_closed,
}

async fn commit(store: &Store, writes: impl IntoIterator<Item = Write>) -> Result<Committed> {
    store.commit(transaction(writes)).await
}

fn put_if(object: Object, condition: Condition) -> Write {
    Write::Put { object, condition }
}
