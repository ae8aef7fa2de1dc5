// SPDX-License-Identifier: GPL-2.0-only

use proptest::prelude::*;

use super::*;

/// As the stock plugin left it after a clone of a server with a binary log.
const COMPLETED: &str = "2 1\n\
    1732200000000000 1732200009000000\n\
    donor1:3306\n\
    0\n\
    \n\
    ./binlog.000004\n\
    1571\n\
    5d1a1d6c-0000-11ef-8000-0242ac110002:1-20,\n\
    6d1a1d6c-0000-11ef-8000-0242ac110002:1-7\n";

fn completed() -> Status {
    Status {
        id: 1,
        pid: 0,
        state: State::Completed,
        begin_us: 1_732_200_000_000_000,
        end_us: 1_732_200_009_000_000,
        source: "donor1:3306".into(),
        destination: LOCAL_INSTANCE.into(),
        error_number: 0,
        error_message: "".into(),
        binlog_file: "./binlog.000004".into(),
        binlog_position: 1571,
        gtid_executed: "5d1a1d6c-0000-11ef-8000-0242ac110002:1-20,\n\
                        6d1a1d6c-0000-11ef-8000-0242ac110002:1-7"
            .into(),
    }
}

fn recovery(file: &str) -> Recovery {
    Recovery::parse(file.as_bytes())
}

#[test]
fn reads_and_writes_the_stock_file() {
    assert_eq!(Status::parse(COMPLETED.as_bytes()), completed());
    assert_eq!(completed().render(), COMPLETED);
    assert_eq!(completed().binlog_base_name(), "binlog.000004");
}

#[test]
fn a_running_clone_is_written_as_interrupted() {
    let status = Status::begin(8, Some(("donor1", 3306)), None, 5_000_000);
    assert_eq!(status.state, State::InProgress);
    assert_eq!(status.pid, 8);
    assert_eq!(status.destination.as_str(), LOCAL_INSTANCE);
    assert_eq!(status.error_number, 0);
    assert_eq!(
        status.render_running(),
        "1 1\n5000000 0\ndonor1:3306\n1317\nQuery execution was interrupted\n\n0\n\n"
    );
}

#[test]
fn source_and_destination() {
    let local = Status::begin(8, None, Some("/backup/clone/"), 0);
    assert_eq!(local.source.as_str(), LOCAL_INSTANCE);
    assert_eq!(local.destination.as_str(), "/backup/clone/");
    for host in ["::1", "[::1]", "0:0:0:0:0:0:0:1"] {
        let v6 = Status::begin(8, Some((host, 3306)), None, 0);
        assert_eq!(v6.source.as_str(), "[::1]:3306");
    }
}

#[test]
fn ends() {
    for (error, is_replace, state) in [
        (None, false, State::Completed),
        (None, true, State::InProgress),
        (Some((3862, "Clone Donor Error: 1")), false, State::Failed),
        (Some((1317, "interrupted")), true, State::Failed),
    ] {
        let mut status = Status::begin(8, None, None, 5);
        status.end(error, is_replace, 9);
        assert_eq!((status.state, status.end_us), (state, 9));
        assert_eq!(status.error_number, error.map_or(0, |(number, _)| number));
        assert_eq!(status.error_message.as_str(), error.map_or("", |(_, text)| text));
    }
}

#[test]
fn a_replace_that_succeeded_is_written_without_an_error() {
    let mut status = Status::begin(8, None, None, 5);
    status.end(None, true, 9);
    assert_eq!(status.render(), "1 1\n5 9\nLOCAL INSTANCE\n0\n\n\n0\n\n");
}

#[test]
fn recovery_completes_a_status() {
    let mut status = Status::parse(b"1 1\n5 9\ndonor:1\n1317\nQuery\nold-binlog\n3\nold-gtid\n");
    status.complete(&recovery("10\n20\n./binlog.2\n77\naa:1,\nbb:2\n"));
    assert_eq!(status.state, State::Completed);
    assert_eq!((status.error_number, status.error_message.as_str()), (0, ""));
    assert_eq!((status.begin_us, status.end_us), (5, 20));
    assert_eq!((status.binlog_base_name(), status.binlog_position), ("binlog.2", 77));
    assert_eq!(status.gtid_executed, "aa:1,\nbb:2");
}

#[test]
fn a_failed_recovery_fails_the_clone() {
    for file in ["", "10\n", "10\n0\n", "10\nx\n"] {
        let mut status = completed();
        status.complete(&recovery(file));
        assert_eq!(status.state, State::Failed, "{file:?}");
        assert_eq!(status.error_number, 1815);
        assert_eq!(
            status.error_message.as_str(),
            "Recovery failed. Please Retry Clone. For details, look into server error log."
        );
        assert_eq!(status.end_us, 0);
        assert_eq!(status.binlog_position, 1571);
    }
}

#[test]
fn a_clone_that_died_with_its_server_has_failed() {
    let settled = |file: &str| {
        let mut status = Status::parse(file.as_bytes());
        status.settle_interrupted();
        (status.state, status.error_number)
    };
    assert_eq!(settled("1 1\n5 0\nd:1\n1317\nQuery\n"), (State::Failed, 1317));
    assert_eq!(settled("1 1\n5 9\nd:1\n0\n\n"), (State::InProgress, 0));
    assert_eq!(settled("2 1\n5 9\nd:1\n0\n\n"), (State::Completed, 0));
}

#[test]
fn an_error_text_keeps_to_its_line() {
    let mut status = Status::begin(8, None, None, 5);
    status.end(Some((3862, "evil\n./binlog\n1\ngtid\0hidden")), false, 9);
    assert_eq!(status.error_message.as_str(), "evil\n./binlog\n1\ngtid");
    let read = Status::parse(status.render().as_bytes());
    assert_eq!(read.error_message.as_str(), "evil ./binlog 1 gtid");
    assert_eq!((read.binlog_file.as_str(), read.binlog_position), ("", 0));
}

#[test]
fn foreign_content_does_no_harm() {
    assert_eq!(
        Status::parse(b""),
        Status { destination: LOCAL_INSTANCE.into(), ..Status::default() }
    );
    let status = Status::parse(b"4 -1\nx 99999999999999999999\n\xff\xfe\n4294967295");
    assert_eq!(status.state, State::NotStarted);
    assert_eq!((status.id, status.begin_us), (0, 0));
    assert_eq!(status.end_us, i64::MAX.unsigned_abs());
    assert_eq!(status.source.as_str(), "\u{fffd}\u{fffd}");
    assert_eq!(status.error_number, i32::MAX.unsigned_abs());
}

prop_compose! {
    fn any_status()(
        (state, id) in (0..4_u32, 0..=i32::MAX.unsigned_abs()),
        (begin_us, end_us) in (0..=i64::MAX.unsigned_abs(), 0..=i64::MAX.unsigned_abs()),
        source in "[^\n\0]{0,100}",
        error_number in 0..=i32::MAX.unsigned_abs(),
        error_message in "[^\n\0]{0,300}",
        binlog_file in "[^\n\0]{0,100}",
        binlog_position in 0..=i64::MAX.unsigned_abs(),
        gtid_executed in "(?s).{0,200}",
    ) -> Status {
        Status {
            id,
            pid: 0,
            state: State::from_number(state),
            begin_us,
            end_us,
            source: source.as_str().into(),
            destination: LOCAL_INSTANCE.into(),
            error_number,
            error_message: error_message.as_str().into(),
            binlog_file: binlog_file.as_str().into(),
            binlog_position,
            gtid_executed,
        }
    }
}

proptest! {
    #[test]
    fn reads_what_it_wrote(status in any_status()) {
        prop_assert_eq!(Status::parse(status.render().as_bytes()), status);
    }

    #[test]
    fn reads_anything(file: Vec<u8>) {
        let read = Status::parse(&file);
        prop_assert_eq!(Status::parse(read.render().as_bytes()), read);
    }
}
