// SPDX-License-Identifier: GPL-2.0-only

//! How a pull shows how far it is: a bar on a terminal, lines elsewhere, events for scripts.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clone_core::meter::Sample;
use clone_core::progress::Stage;
use clone_core::session::Observer;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use serde_json::json;

use super::target::Place;

/// Time between two lines of a stage, where no bar is shown.
const INTERVAL: Duration = Duration::from_secs(10);

/// Where progress goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// A bar or lines, on standard error.
    Text,
    /// One JSON object a line, on standard output.
    Json,
    /// Nothing.
    Nothing,
}

/// The progress of a pull.
pub(crate) struct Progress {
    show: Show,
    bar: Option<ProgressBar>,
    now: Mutex<Now>,
}

/// How far the pull is.
struct Now {
    /// None before the first stage.
    stage: Option<Stage>,
    started: Instant,
    /// Bytes in the stage.
    bytes: u64,
    estimate: u64,
    said: Instant,
    totals: Totals,
}

/// What a pull has moved, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Data as InnoDB has it.
    pub(crate) data: u64,
    /// On the network.
    pub(crate) network: u64,
    /// The most threads at once.
    pub(crate) threads: u32,
}

impl Progress {
    pub(crate) fn new(show: Show) -> Self {
        let is_bar = show == Show::Text && std::io::stderr().is_terminal();
        let now = Now {
            stage: None,
            started: Instant::now(),
            bytes: 0,
            estimate: 0,
            said: Instant::now(),
            totals: Totals::default(),
        };
        Self { show, bar: is_bar.then(new_bar), now: Mutex::new(now) }
    }

    /// A panic of another thread leaves at worst a number that is too low.
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with a pull of another process.
    pub(super) fn resume(&self, place: &Place) {
        let mut now = self.now();
        now.stage = Some(place.stage());
        now.started = Instant::now();
        now.bytes = place.bytes;
        now.estimate = place.estimate;
        if let Some(bar) = &self.bar {
            bar.set_message(place.stage().name());
            self.show(&mut now);
        }
    }

    /// What has been moved so far.
    pub(crate) fn totals(&self) -> Totals {
        self.now().totals
    }

    /// Something that a user has to know.
    pub(crate) fn say(&self, text: &str) {
        match (self.show, &self.bar) {
            (Show::Nothing, _) => {}
            (Show::Json, _) => self.event(&json!({"event": "message", "text": text})),
            (Show::Text, Some(bar)) => bar.suspend(|| eprintln!("mysql-clone: {text}")),
            (Show::Text, None) => eprintln!("mysql-clone: {text}"),
        }
    }

    /// Something that may become a problem. `--quiet` does not suppress warnings.
    pub(crate) fn warn(&self, text: &str) {
        match (self.show, &self.bar) {
            (Show::Json, _) => self.event(&json!({"event": "warning", "text": text})),
            (_, Some(bar)) => bar.suspend(|| eprintln!("mysql-clone: [Warning] {text}")),
            (_, None) => eprintln!("mysql-clone: [Warning] {text}"),
        }
    }

    /// Writes one event to standard output. A closed pipe does not stop the clone.
    pub(crate) fn event(&self, event: &serde_json::Value) {
        if self.show == Show::Json {
            let _ = writeln!(std::io::stdout().lock(), "{event}");
        }
    }

    /// The pull has ended, with or without success.
    pub(crate) fn finish(&self) {
        self.end_stage(&mut self.now());
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn end_stage(&self, now: &mut Now) {
        let Some(stage) = now.stage.take() else { return };
        let seconds = now.started.elapsed().as_secs_f64();
        self.event(&json!({
            "event": "stage_end", "stage": stage.name(), "bytes": now.bytes, "seconds": seconds,
        }));
        // DROP DATA does nothing here.
        if self.show == Show::Text && stage != Stage::DropData {
            let rate = now.bytes as f64 / seconds.max(0.001);
            self.say(&format!(
                "{}: {} in {seconds:.1} s, {}/s",
                stage.name(),
                HumanBytes(now.bytes),
                HumanBytes(rate as u64)
            ));
        }
    }

    fn show(&self, now: &mut Now) {
        let Some(stage) = now.stage else { return };
        if let Some(bar) = &self.bar {
            bar.set_length(now.estimate.max(now.bytes));
            bar.set_position(now.bytes);
            return;
        }
        let interval = if self.show == Show::Json { Duration::from_secs(1) } else { INTERVAL };
        if now.said.elapsed() < interval {
            return;
        }
        now.said = Instant::now();
        let elapsed = now.started.elapsed().as_secs_f64();
        let rate = now.bytes as f64 / elapsed.max(0.001);
        let left = now.estimate.saturating_sub(now.bytes) as f64 / rate.max(1.0);
        self.event(&json!({
            "event": "progress", "stage": stage.name(), "bytes": now.bytes,
            "estimate": now.estimate, "bytes_per_second": rate as u64,
            "seconds_left": left as u64,
        }));
        if self.show == Show::Text {
            let left = HumanDuration(Duration::from_secs_f64(left.min(1e9)));
            self.say(&format!(
                "{}: {} of {}, {}/s, {left} left",
                stage.name(),
                HumanBytes(now.bytes),
                HumanBytes(now.estimate),
                HumanBytes(rate as u64),
            ));
        }
    }
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg:10} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}",
    );
    let bar = ProgressBar::new(0).with_message("connecting");
    bar.enable_steady_tick(Duration::from_millis(500));
    // The template above is right, or a bar of the library's own is shown.
    match style {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

impl Observer for Progress {
    fn next_stage(&self, threads: u32, estimate: u64, _: u64) {
        let mut now = self.now();
        // A clone without a server has no data to drop: that stage is over at once.
        let next = match now.stage {
            None => Stage::DropData,
            Some(stage) => {
                let at = Stage::ALL.iter().position(|one| *one == stage).unwrap_or(0);
                Stage::ALL.get(at + 1).copied().unwrap_or(Stage::FileSync)
            }
        };
        self.end_stage(&mut now);
        now.stage = Some(next);
        now.started = Instant::now();
        now.bytes = 0;
        now.estimate = estimate;
        now.totals.threads = now.totals.threads.max(threads);
        if next != Stage::DropData {
            self.event(&json!({
                "event": "stage_begin", "stage": next.name(), "estimate": estimate,
            }));
            if let Some(bar) = &self.bar {
                bar.set_message(next.name());
                bar.set_length(estimate);
                bar.set_position(now.bytes);
                bar.reset_eta();
            }
        }
    }

    fn transferred(&self, sample: &Sample, threads: u32) {
        let mut now = self.now();
        now.bytes += sample.data_bytes;
        now.totals.data += sample.data_bytes;
        now.totals.network += sample.network_bytes;
        now.totals.threads = now.totals.threads.max(threads);
        self.show(&mut now);
    }

    fn add_estimate(&self, bytes: u64) {
        self.now().estimate += bytes;
    }
}
