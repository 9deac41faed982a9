//! Files of the log that somebody has deleted: the data directory remembers the newest.

use super::super::{DataDir, Phase, StoppedLog};
use super::*;
use crate::disk::Disk;
use crate::simulated::{Fault, Survival};

fn data_dir(disk: &SimDisk) -> Result<DataDir, LogError> {
    DataDir::open(Arc::new(disk.clone()), Path::new("/node"), 5, 1)
}

/// The log of a node that takes part.
fn open_log(disk: &SimDisk) -> Result<Log, LogError> {
    let dir = data_dir(disk)?;
    dir.identity().advance(Phase::Prepared, 0)?;
    Log::open(dir, &options())
}

/// Writes entries over several segments. Gives how many were acknowledged.
fn write(disk: &SimDisk) -> u64 {
    let Ok(mut log) = open_log(disk) else { return 0 };
    let done = (0..8).take_while(|index| append(&mut log, vec![entry(1, *index, &[1; 900])]).is_ok()).count();
    // It may have failed.
    let _ = log.close();
    done.try_into().unwrap()
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let names = disk.list(dir()).unwrap();
    names.into_iter().filter(|name| name.ends_with(".log")).collect()
}

#[test]
fn a_log_whose_newest_segments_are_gone_is_refused_and_left_as_it_is() {
    let disk = SimDisk::new(1);
    assert_eq!(write(&disk), 8);
    let names = segments(&disk);
    assert!(names.len() > 3, "{names:?}");
    for kept in 0..names.len() {
        let lost = disk.fork();
        for name in &names[kept..] {
            lost.remove(&dir().join(name)).unwrap();
        }
        let before = lost.contents();
        for _ in 0..2 {
            let refused = open_log(&lost).unwrap_err();
            assert!(matches!(refused, LogError::Missing { .. }), "{kept} are left: {refused}");
            let refused = StoppedLog::read(&data_dir(&lost).unwrap()).unwrap_err();
            assert!(matches!(refused, LogError::Missing { .. }), "{kept} are left: {refused}");
        }
        assert_eq!(lost.contents(), before);
    }
    drop(open_log(&disk).unwrap());
}

/// It takes no part yet, so nothing of its log is needed.
#[test]
fn a_node_that_is_new_may_lose_its_log() {
    let disk = SimDisk::new(1);
    drop(Log::open(data_dir(&disk).unwrap(), &options()).unwrap());
    for name in disk.list(dir()).unwrap() {
        disk.remove(&dir().join(name)).unwrap();
    }
    drop(Log::open(data_dir(&disk).unwrap(), &options()).unwrap());
    assert_eq!(write(&disk), 8);
    drop(open_log(&disk).unwrap());
}

#[test]
fn a_crash_at_any_operation_looks_like_no_loss() {
    let counted = SimDisk::new(0);
    write(&counted);
    for operation in 0..counted.operations() {
        for fault in [Fault::PowerLoss, Fault::Eio, Fault::Enospc] {
            for survival in
                [Survival::Nothing, Survival::Everything, Survival::Any(operation), Survival::Any(operation + 7)]
            {
                let disk = SimDisk::new(operation);
                disk.fail_at(operation, fault);
                let acknowledged = write(&disk);
                let context = format!("operation {operation}, {fault:?}, {survival:?}");
                let mut log = open_log(&disk.crash(survival)).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(Held::by(&mut log).next_index() >= acknowledged, "{context}");
            }
        }
    }
}
