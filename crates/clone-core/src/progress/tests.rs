// SPDX-License-Identifier: GPL-2.0-only

use proptest::prelude::*;

use super::*;

/// As the stock plugin left it when a clone that replaced the data had ended.
const REPLACED: &str = "1\n\
    2 1 100 110 0 0 0\n\
    2 4 110 150 5000 5000 5100\n\
    2 4 150 160 600 600 700\n\
    2 4 160 170 70 70 80\n\
    2 4 170 180 0 0 0\n\
    0 0 0 0 0 0 0\n\
    0 0 0 0 0 0 0\n";

fn replaced() -> Progress {
    Progress::parse(REPLACED.as_bytes())
}

fn states(progress: &Progress) -> Vec<State> {
    progress.rows().map(|(_, row)| row.state).collect()
}

const fn sample(data_bytes: u64, network_bytes: u64, speed: u64) -> Sample {
    Sample { data_bytes, network_bytes, data_speed: speed, network_speed: speed / 2 }
}

#[test]
fn stages_have_the_names_of_the_table() {
    let names: Vec<_> = Progress::default().rows().map(|(stage, _)| stage.name()).collect();
    assert_eq!(
        names,
        ["DROP DATA", "FILE COPY", "PAGE COPY", "REDO COPY", "FILE SYNC", "RESTART", "RECOVERY"]
    );
}

#[test]
fn reads_and_writes_the_stock_file() {
    let progress = replaced();
    assert_eq!(progress.id, 1);
    assert_eq!(
        *progress.stage(Stage::FileCopy),
        StageProgress {
            state: State::Completed,
            threads: 4,
            begin_us: 110,
            end_us: 150,
            estimate: 5000,
            data: 5000,
            network: 5100,
        }
    );
    assert_eq!(progress.render(), REPLACED);
}

#[test]
fn goes_from_stage_to_stage() {
    let mut progress = Progress::default();
    progress.next_stage(1, 0, 10);
    progress.next_stage(2, 1000, 20);
    progress.transferred(&sample(600, 300, 50), 3);
    progress.transferred(&sample(100, 50, 70), 5);
    assert_eq!(progress.id, 1);
    assert_eq!(states(&progress)[..3], [State::Completed, State::InProgress, State::NotStarted]);
    let row = StageProgress {
        state: State::InProgress,
        threads: 5,
        begin_us: 20,
        end_us: 0,
        estimate: 1000,
        data: 700,
        network: 350,
    };
    assert_eq!(*progress.stage(Stage::FileCopy), row);
    let speeds: Vec<_> =
        Stage::ALL.map(|stage| (progress.data_speed(stage), progress.network_speed(stage))).into();
    assert_eq!(speeds[..3], [(0, 0), (70, 35), (0, 0)]);

    progress.next_stage(5, 0, 30);
    assert_eq!(progress.stage(Stage::FileCopy).end_us, 30);
    assert_eq!(progress.data_speed(Stage::PageCopy), 0);
    progress.end_stage(State::Failed, 40);
    assert_eq!(states(&progress)[2], State::Failed);
}

#[test]
fn an_engine_without_stages_adds_to_the_one_that_runs() {
    let mut progress = Progress::default();
    progress.add_estimate(5);
    assert_eq!(progress, Progress::default(), "none has begun");
    for (stage, estimate) in [(1, 0), (2, 1000), (3, 0), (4, 10), (5, 0)] {
        progress.next_stage(1, estimate, stage);
    }
    progress.add_estimate(300);
    progress.add_estimate(7);
    progress.transferred(&sample(307, 310, 50), 1);
    progress.end_stage(State::Completed, 6);
    assert_eq!(states(&progress)[..5], [State::Completed; 5]);
    let row = progress.stage(Stage::FileSync);
    assert_eq!((row.estimate, row.data, row.end_us), (307, 307, 6));
    assert_eq!(progress.stage(Stage::FileCopy).estimate, 1000);
    progress.add_estimate(u64::MAX);
    assert_eq!(progress.stage(Stage::FileSync).estimate, i64::MAX.unsigned_abs());
}

#[test]
fn a_donor_cannot_begin_the_stages_of_the_server() {
    let mut progress = Progress::default();
    for now_us in 1..20 {
        progress.next_stage(1, 0, now_us);
    }
    assert_eq!(states(&progress)[4..], [State::InProgress, State::NotStarted, State::NotStarted]);
    assert_eq!(progress.stage(Stage::FileSync).begin_us, 5);
}

#[test]
fn a_running_stage_is_written_as_failed() {
    let mut progress = Progress::default();
    progress.next_stage(3, 77, 10);
    let text = progress.render();
    assert!(text.starts_with("1\n3 3 10 0 77 0 0\n0 0 0 0 0 0 0\n"), "{text}");
    let read = Progress::parse(text.as_bytes());
    assert_eq!(states(&read)[0], State::Failed);
    assert_eq!(read.data_speed(Stage::DropData), 0);
}

#[test]
fn values_stay_within_their_columns() {
    let mut progress = Progress::default();
    progress.next_stage(u32::MAX, u64::MAX, 0);
    progress.transferred(&sample(u64::MAX, u64::MAX, 1 << 33), u32::MAX);
    progress.transferred(&sample(u64::MAX, u64::MAX, 1 << 33), u32::MAX);
    let row = progress.stage(Stage::DropData);
    assert_eq!(row.threads, i32::MAX.unsigned_abs());
    let amounts = [row.estimate, row.data, row.network];
    assert_eq!(amounts, [i64::MAX.unsigned_abs(); 3]);
    assert_eq!(progress.data_speed(Stage::DropData), i32::MAX.unsigned_abs());
    assert_eq!(progress.network_speed(Stage::DropData), i32::MAX.unsigned_abs());
}

#[test]
fn recovery_fills_the_last_stages() {
    let mut progress = replaced();
    progress.complete(&Recovery::parse(b"200\n230\n./binlog.1\n4\n"));
    let times = |stage| (progress.stage(stage).begin_us, progress.stage(stage).end_us);
    assert_eq!(times(Stage::FileSync), (170, 180));
    assert_eq!(times(Stage::Restart), (180, 200));
    assert_eq!(times(Stage::Recovery), (200, 230));
    assert_eq!(states(&progress), [State::Completed; 7]);

    let again = progress.clone();
    progress.complete(&Recovery::parse(b"200\n230\n./binlog.1\n4\n"));
    assert_eq!(progress, again);
}

#[test]
fn recovery_tells_that_the_clone_had_succeeded() {
    for interrupted in ["3 4 170 0", "3 4 170 180", "2 4 170 0"] {
        let file = REPLACED.replace("2 4 170 180", interrupted);
        let mut progress = Progress::parse(file.as_bytes());
        progress.complete(&Recovery::parse(b"200\n230\n"));
        assert_eq!(progress.stage(Stage::FileSync).end_us, 200, "{interrupted}");
        assert_eq!(progress.stage(Stage::Restart).begin_us, 200);
        assert_eq!(states(&progress), [State::Completed; 7]);
    }
}

#[test]
fn a_failed_recovery_shows() {
    let mut progress = replaced();
    progress.complete(&Recovery::parse(b"200\n0\n"));
    assert_eq!(states(&progress)[5..], [State::Completed, State::Failed]);
    let mut progress = replaced();
    progress.complete(&Recovery::parse(b""));
    assert_eq!(states(&progress)[5..], [State::NotStarted, State::Failed]);
    assert_eq!(progress.stage(Stage::FileSync).end_us, 180);
}

#[test]
fn foreign_content_does_no_harm() {
    assert_eq!(Progress::parse(b""), Progress::default());
    let progress = Progress::parse(b"1\n9 9 9 9 9 9 9 9 9\n1\n\xff -2\n\n");
    assert_eq!(states(&progress)[..3], [State::NotStarted, State::Failed, State::NotStarted]);
    assert_eq!(progress.stage(Stage::DropData).network, 9);
}

fn any_stage() -> impl Strategy<Value = StageProgress> {
    let amount = || 0..=i64::MAX.unsigned_abs();
    let state = prop_oneof![Just(State::NotStarted), Just(State::Completed), Just(State::Failed)];
    (state, 0..=i32::MAX.unsigned_abs(), amount(), amount(), amount(), amount(), amount()).prop_map(
        |(state, threads, begin_us, end_us, estimate, data, network)| StageProgress {
            state,
            threads,
            begin_us,
            end_us,
            estimate,
            data,
            network,
        },
    )
}

proptest! {
    #[test]
    fn reads_what_it_wrote(
        id in 0..=i32::MAX.unsigned_abs(),
        stages in proptest::array::uniform7(any_stage()),
    ) {
        let progress = Progress { id, stages, ..Progress::default() };
        prop_assert_eq!(Progress::parse(progress.render().as_bytes()), progress);
    }

    #[test]
    fn reads_anything(file: Vec<u8>) {
        let read = Progress::parse(&file);
        prop_assert_eq!(Progress::parse(read.render().as_bytes()), read);
    }
}
