// SPDX-License-Identifier: GPL-2.0-only

//! Chooses how the blocks of a clone are packed, while they are sent ([`Packing::Auto`]).
//!
//! All tasks of a clone share one [`Steering`]. It is told what each block took, and knows nothing
//! else: no clock, no socket, no processor. Four figures decide:
//!
//! * how fast the link is: the bytes that leave in a second while the tasks wait for the network,
//! * what each packing makes of a block, and how long it takes for that,
//! * what the tasks do besides, for example read,
//! * the processor time that packing may take.
//!
//! From these figures a model says how long a byte takes with each packing. In a survey, one block
//! is packed in each way that may be better, so that the outcomes can be compared. A packing that
//! should be faster is then used for all blocks (a trial). A trial that does not make the clone
//! faster is taken back: then something else than the link is slow, for example the recipient's
//! disk. Surveys and trials may cost a hundredth of the clone's time.

mod rung;
mod survey;
mod trial;
mod window;

use std::time::Duration;

use clone_protocol::Packing;

use rung::{BACKOFF, Figures, LADDER, Rung, is_same_data};
pub(super) use survey::{Sampled, Survey};
use trial::{SETTLE, Trial};
pub(super) use window::Measured;
use window::{PAUSE, Shown, WINDOW_BLOCKS, Window};

/// A packing must be better than a cheaper one by this factor, or it is not worth its work.
const GAIN: f64 = 0.93;

/// A trial has succeeded if a byte takes at most this factor longer than the model says, or if half
/// of the gain is there. The model may think that the link is faster than it is. The blocks of the
/// trial may hold more than those before.
const EXPECTED: f64 = 1.1;

/// A cheaper packing may be slower by this much.
const SAME: f64 = 1.02;

/// The part of the clone's time that surveys and trials may cost.
const SPENDING: f64 = 0.01;

/// Task-seconds of surveys and trials that are remembered beyond what they may cost. A link that
/// hangs during a trial makes that trial dear, and says nothing of the next one.
const MAX_OVERSPENT: f64 = 2.0;

/// Two windows in a row whose times differ by less than this factor are steady. At the beginning
/// the buffers fill, and the link seems to be fast.
const STEADY: f64 = 1.25;

/// After so many windows that are not steady, a trial begins anyway.
const MAX_UNSTEADY: u32 = 4;

/// Processors that packing may use for each task without being asked why. Data that does not shrink
/// costs less than that, so the packing stays for the data that comes next.
const TRIFLE: f64 = 0.02;

/// See the module.
#[derive(Debug)]
pub(super) struct Steering {
    rungs: Vec<Rung>,
    current: usize,
    survey: Option<Survey>,
    trial: Option<Trial>,
    window: Window,
    /// When the last block was sent.
    last: Option<f64>,
    shown: Option<Shown>,
    /// The packing with which the tasks waited for the network in the last such window.
    limited: Option<usize>,
    /// More bytes leave than `link` says, and no task waits for the network.
    is_faster: bool,
    /// Windows since the last steady one.
    unsteady: u32,
    /// Speed of the link, in bytes per second. None until tasks have waited for the network once.
    /// Windows without such a wait can only raise it.
    link: Option<f64>,
    /// Task-seconds so far.
    worked: f64,
    /// Task-seconds that surveys and trials have cost.
    spent: f64,
    /// Processors that packing may use.
    processors: f64,
}

impl Steering {
    /// A choice among those packings that `accepts`; [`Packing::None`] always is one.
    pub(super) fn new(accepts: impl Fn(Packing) -> bool) -> Self {
        let is_there = |packing: &Packing| *packing == Packing::None || accepts(*packing);
        Self {
            rungs: LADDER.into_iter().filter(is_there).map(Rung::new).collect(),
            current: 0,
            survey: None,
            trial: None,
            window: Window::new(0.0),
            last: None,
            shown: None,
            limited: None,
            is_faster: false,
            unsteady: 0,
            link: None,
            worked: 0.0,
            spent: 0.0,
            processors: 0.0,
        }
    }

    /// How to pack the next block. If a survey is due, the caller packs the block in each way of
    /// the survey first, and gives the survey back.
    pub(super) fn choose(&mut self) -> (Packing, Option<Survey>) {
        (self.rungs[self.current].packing, self.survey.take())
    }

    /// Takes a survey back with which no block was packed.
    pub(super) fn give_back(&mut self, survey: Survey) {
        self.survey.get_or_insert(survey);
    }

    /// No task has been at work until now.
    pub(super) fn pause(&mut self) {
        self.last = None;
    }

    /// Takes a survey back with which one block more was [packed](Survey::sample).
    pub(super) fn surveyed(&mut self, now: Duration, survey: Survey) {
        let now = now.as_secs_f64();
        let reference = survey.reference;
        if reference.raw <= 0.0 {
            return;
        }
        let raw = reference.raw / f64::from(survey.blocks);
        let free = self.shown.map_or(0.0, |shown| shown.blocked * raw);
        self.spend(survey.cost - free);
        let recent = &mut self.rungs[reference.rung];
        let ratio = recent.figures.ratio;
        if !survey.is_enough(ratio) && self.current == reference.rung {
            self.survey = Some(survey);
            return;
        }
        recent.surveyed = ratio;
        for (rung, raw, figures) in survey.outcome(ratio) {
            let rung = &mut self.rungs[rung];
            rung.note(now, raw, figures);
            rung.surveyed = rung.figures.ratio;
        }
        if self.trial.is_none() {
            self.decide(now);
        }
    }

    /// Takes what a block took. So many tasks are at work, and packing may use so many processors.
    pub(super) fn sent(&mut self, now: Duration, one: &Measured, tasks: u32, processors: f64) {
        let now = now.as_secs_f64();
        let tasks = f64::from(tasks.max(1));
        self.processors = processors;
        let took = one.elapsed.as_secs_f64();
        if one.raw == 0 {
            return;
        }
        let last = self.last.replace(now);
        if took - one.blocked.as_secs_f64() > PAUSE {
            self.window = Window::new(now);
            return;
        }
        let begin = (now - took).max(0.0);
        if last.is_none_or(|last| begin - last > PAUSE) {
            self.window = Window::new(begin);
        }
        let raw = one.raw as f64;
        let (pack, pack_cpu) = (one.pack.as_secs_f64(), one.pack_cpu.as_secs_f64());
        let current = &mut self.rungs[self.current];
        // The figures of a block whose packing was chosen before the last change are left out.
        if current.packing == one.packing {
            let ratio = one.sent as f64 / raw;
            current.note(now, raw, Figures { ratio, pace: pack / raw, cpu: pack_cpu / raw });
        }
        self.window.add(one);
        if self.window.is_full(now, tasks) {
            self.close_window(now, tasks);
        }
    }

    fn close_window(&mut self, now: f64, tasks: f64) {
        let window = std::mem::replace(&mut self.window, Window::new(now));
        self.worked += window.elapsed;
        self.spent = self.spent.min(SPENDING * self.worked + MAX_OVERSPENT);
        let (mut shown, speed) = window.shown(now, tasks);
        // The same packing kept the network busy before, or more leaves than ever: the link is
        // faster than it was.
        let is_more = self.link.is_some_and(|link| speed > STEADY * link);
        let was_limited = self.limited == Some(self.current);
        self.is_faster = !shown.is_limited && (was_limited || is_more || self.is_faster);
        self.link = match self.link {
            Some(link) if shown.is_limited => Some(f64::midpoint(link, speed)),
            Some(link) => Some(link.max(speed)),
            None => shown.is_limited.then_some(speed),
        };
        if shown.is_limited {
            self.limited = Some(self.current);
        }
        self.notice_other_data();
        let change = self.shown.map_or(f64::MAX, |last| shown.time / last.time);
        let is_steady = (1.0 / STEADY..STEADY).contains(&change);
        self.unsteady = if is_steady { 0 } else { self.unsteady + 1 };
        if let Some(last) = self.shown.filter(|_| is_steady) {
            shown.time = f64::midpoint(shown.time, last.time);
        }
        self.shown = Some(shown);
        match self.trial {
            Some(trial) => self.judge(now, trial, &window, &shown),
            None => self.decide(now),
        }
    }

    /// Forgets the last survey if the blocks are not like those that it saw.
    fn notice_other_data(&mut self) {
        let current = &mut self.rungs[self.current];
        if is_same_data(current.figures.ratio, current.surveyed) {
            return;
        }
        current.surveyed = current.figures.ratio;
        for (index, rung) in self.rungs.iter_mut().enumerate() {
            if index != self.current {
                rung.forget();
            }
        }
    }

    /// Counts what a trial costs, and judges it when its blocks are what the window has measured.
    fn judge(&mut self, now: f64, mut trial: Trial, window: &Window, shown: &Shown) {
        self.spend((shown.time - trial.before) * window.raw * shown.tasks);
        if !trial.count_window(window, shown) {
            self.trial = Some(trial);
            return;
        }
        self.trial = None;
        if trial.is_return {
            self.judge_return(now, &trial, shown);
        } else if self.has_succeeded(&trial, shown) {
            self.keep(now, &trial, shown);
        } else {
            // The link may have changed, so that the packing before the trial has become slow, too.
            return self.start(trial.from, shown.time, trial.part, true);
        }
        self.decide(now);
    }

    /// Whether a byte takes as long as the model says, or half of the gain is there.
    fn has_succeeded(&self, trial: &Trial, shown: &Shown) -> bool {
        let expected =
            predicted(&self.rungs[self.current].figures, shown, trial.link, self.processors);
        shown.time <= trial.half() || shown.time <= EXPECTED * expected
    }

    /// Stays with a packing that has succeeded.
    fn keep(&mut self, now: f64, trial: &Trial, shown: &Shown) {
        let tried = self.current;
        let time = |rung: usize| self.predicted(&self.rungs[rung].figures, shown);
        if tried < trial.from && time(tried) > SAME * time(trial.from) {
            self.refuse(now, tried, tried + 1);
        } else {
            self.rungs[tried].backoff = BACKOFF;
        }
    }

    /// The packing before the failed trial is in use again. If it is not clearly slower than the
    /// packing that failed, the packing that failed does not help.
    fn judge_return(&mut self, now: f64, trial: &Trial, shown: &Shown) {
        let (from, tried) = (trial.from, self.current);
        if shown.time * f64::midpoint(1.0, trial.part) <= trial.before {
            // If a dearer packing does not help, packings that are dearer still do not help either.
            let end = if from > tried { self.rungs.len() } else { from + 1 };
            self.refuse(now, from, end);
        } else {
            self.current = from;
            self.rungs[from].backoff = BACKOFF;
        }
    }

    /// Uses the packing from now on, as a trial.
    fn start(&mut self, rung: usize, before: f64, part: f64, is_return: bool) {
        self.trial = Some(Trial::new(self.current, before, part, self.link, is_return));
        self.current = rung;
    }

    /// These packings do not make the clone faster: no trial of them for some time.
    fn refuse(&mut self, now: f64, first: usize, end: usize) {
        let backoff = self.rungs[first].backoff;
        self.rungs[first..end].iter_mut().for_each(|rung| rung.refuse(now, backoff));
    }

    /// Counts task-seconds that a survey or a trial has cost.
    fn spend(&mut self, cost: f64) {
        self.spent += cost.max(0.0);
    }

    /// Seconds for a byte with these figures, of all tasks together.
    fn predicted(&self, figures: &Figures, shown: &Shown) -> f64 {
        predicted(figures, shown, self.link, self.processors)
    }

    /// Looks for a better packing, and begins a survey or a trial of it.
    fn decide(&mut self, now: f64) {
        let Some(shown) = self.shown.filter(|_| self.survey.is_none()) else { return };
        if self.processors <= 0.0 {
            self.current = 0;
            return;
        }
        let budget = (SPENDING * self.worked - self.spent).max(0.0);
        let wanted = self.worth_a_survey(now, &shown, budget);
        if !wanted.is_empty() {
            let packing = |rung: usize| (rung, self.rungs[rung].packing);
            let others = wanted.into_iter().map(packing);
            self.survey = Some(Survey::new(packing(self.current), others));
            return;
        }
        let mut best = 0;
        for (index, rung) in self.rungs.iter().enumerate() {
            let is_known = rung.at.is_some() && rung.not_before <= now;
            let may_be = index == self.current || index == 0 || is_known;
            let time = self.predicted(&rung.figures, &shown);
            if may_be && time < GAIN * self.predicted(&self.rungs[best].figures, &shown) {
                best = index;
            }
        }
        let current = &self.rungs[self.current].figures;
        let time = self.predicted(current, &shown);
        let is_trifle = current.cpu / time < TRIFLE * shown.tasks;
        if best < self.current
            && is_trifle
            && self.predicted(&self.rungs[best].figures, &shown) > GAIN * time
        {
            best = self.current;
        }
        if self.tries_without_packing(now, &shown, best, budget) {
            best = 0;
        }
        if best != self.current && (self.unsteady == 0 || self.unsteady >= MAX_UNSTEADY) {
            let part = self.predicted(&self.rungs[best].figures, &shown) / time;
            self.start(best, shown.time, part, false);
        }
    }

    /// Packings whose figures are old, and that may be better than all for which they are not.
    fn worth_a_survey(&self, now: f64, shown: &Shown, budget: f64) -> Vec<usize> {
        let fresh =
            |index: usize| index == 0 || index == self.current || self.rungs[index].is_fresh(now);
        let rungs = 0..self.rungs.len();
        let times = rungs.clone().filter(|index| fresh(*index));
        let times = times.map(|index| self.predicted(&self.rungs[index].figures, shown));
        let limit = GAIN * times.fold(f64::MAX, f64::min);
        // The packing in use packs the block once more.
        let pace = |index: usize| self.rungs[index].figures.pace * shown.block;
        let mut free = shown.blocked * shown.block + budget - pace(self.current);
        let mut wanted = Vec::new();
        for index in rungs.filter(|index| !fresh(*index)) {
            let rung = &self.rungs[index];
            let hoped = Figures::hoped(rung.packing);
            if rung.not_before > now || self.predicted(&hoped, shown) >= limit {
                continue;
            }
            free -= if rung.at.is_some() { pace(index) } else { hoped.pace * shown.block };
            if free < 0.0 {
                break;
            }
            wanted.push(index);
        }
        wanted
    }

    /// While packing takes all of the time, nobody knows how fast the link is. So blocks are sent
    /// unpacked for a moment, if the link seems to be faster than it was, and else as often as the
    /// budget allows.
    fn tries_without_packing(&self, now: f64, shown: &Shown, best: usize, budget: f64) -> bool {
        let plain = &self.rungs[0];
        if self.current == 0 || shown.is_limited || plain.not_before > now {
            return false;
        }
        let loss = self.predicted(&plain.figures, shown) - shown.time;
        let bytes = SETTLE * shown.tasks + WINDOW_BLOCKS * shown.block;
        self.is_faster || (best == self.current && loss * bytes * shown.tasks <= budget)
    }
}

/// Seconds for a byte with these figures, of all tasks together, over a link of so many bytes per
/// second, if packing may use so many processors.
fn predicted(figures: &Figures, shown: &Shown, link: Option<f64>, allowed: f64) -> f64 {
    let work = (shown.own + figures.pace) / shown.tasks;
    let network = link.map_or(0.0, |link| figures.ratio / link);
    let processors = if figures.cpu > 0.0 { figures.cpu / allowed } else { 0.0 };
    work.max(network).max(processors)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
