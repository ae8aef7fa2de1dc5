// SPDX-License-Identifier: GPL-2.0-only

//! The table and the picture.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use clone_testkit::anyhow::{Context, Result};
use clone_testkit::server::Server;
use serde_json::{Value, json};

use crate::build::Build;
use crate::measure::Sample;
use crate::options::Options;
use crate::scenario::Scenario;

/// A scenario and what was measured.
#[derive(Debug)]
pub(crate) struct Line {
    scenario: Scenario,
    samples: Vec<(Build, Vec<Sample>)>,
}

/// Median, smallest and largest of some values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// None without samples.
    fn of(samples: &[Sample], value: fn(&Sample) -> f64) -> Option<Self> {
        let mut values: Vec<f64> = samples.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { median, min, max })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}–{:.2})", self.median, self.min, self.max)
    }
}

impl Line {
    /// A line without samples yet.
    pub(crate) fn new(scenario: &Scenario, builds: &[Build]) -> Self {
        let samples = builds.iter().map(|build| (*build, Vec::new())).collect();
        Self { scenario: *scenario, samples }
    }

    /// Adds what one clone took.
    pub(crate) fn add(&mut self, build: Build, sample: Sample) {
        if let Some((_, samples)) = self.samples.iter_mut().find(|(other, _)| *other == build) {
            samples.push(sample);
        }
    }

    /// What is known of this build; nothing if the build was not measured.
    fn spread(&self, build: Build, value: fn(&Sample) -> f64) -> Option<Spread> {
        let (_, samples) = self.samples.iter().find(|(other, _)| *other == build)?;
        Spread::of(samples, value)
    }

    /// Each build's spread in the order ours, stock, stock compressed, other.
    fn spreads(&self, value: fn(&Sample) -> f64) -> impl Iterator<Item = Spread> {
        [Build::Ours, Build::Stock, Build::StockCompressed, Build::Other]
            .into_iter()
            .filter_map(move |build| self.spread(build, value))
    }

    /// Ours by another build, medians.
    fn ratio(&self, build: Build, value: fn(&Sample) -> f64) -> Option<f64> {
        let (ours, theirs) = (self.spread(Build::Ours, value)?, self.spread(build, value)?);
        (theirs.median != 0.0).then(|| ours.median / theirs.median)
    }

    /// `**ours by stock** / **ours by other**: ours / stock / other`.
    fn cell(&self, value: fn(&Sample) -> f64) -> String {
        let ratios = [Build::Stock, Build::Other].into_iter().filter_map(|build| {
            // A build that took no measurable time has a median, but no ratio.
            self.spread(build, value)?;
            let ratio = self.ratio(build, value);
            Some(ratio.map_or_else(|| "–".into(), |ratio| format!("**{ratio:.2}**")))
        });
        format!("{}: {}", join(ratios), join(self.spreads(value).map(|spread| spread.to_string())))
    }

    /// Medians in the order ours, stock, other.
    fn medians(&self, decimals: usize, value: fn(&Sample) -> f64) -> String {
        join(self.spreads(value).map(|spread| format!("{:.decimals$}", spread.median)))
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(" / ")
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:30} wall {}  cpu {}  net {} of {} MiB, FILE COPY {} MiB/s  rss {}",
            self.scenario.name,
            self.cell(|sample| sample.wall),
            self.cell(|sample| sample.cpu),
            self.medians(0, |sample| sample.network),
            self.medians(0, |sample| sample.data),
            self.medians(1, |sample| sample.file_copy),
            self.medians(0, |sample| sample.rss),
        )?;
        if self.scenario.writers {
            let transactions = self.cell(|sample| sample.transactions);
            let left = self.medians(2, Sample::left);
            write!(f, "  transactions/s {transactions}, of those before {left}")?;
        }
        Ok(())
    }
}

/// Between these two lines of `performance.md` everything is written anew.
const BEGIN: &str = "<!-- begin of what `make bench` writes -->\n";
const END: &str = "<!-- end of what `make bench` writes -->\n";

/// Writes the table into `performance.md` of the directory, and the picture beside it.
pub(crate) fn write(directory: &Path, lines: &[Line], options: &Options) -> Result<()> {
    let path = directory.join("performance.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|_| format!("{BEGIN}{END}"));
    let (before, rest) =
        text.split_once(BEGIN).context("performance.md has no place for the table")?;
    let (_, after) = rest.split_once(END).context("performance.md has no end of the table")?;
    let table = table(lines, options)?;
    fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}"))?;
    let has_other = options.other.is_some();
    let builds = [Build::Stock, Build::Ours, Build::Other];
    let builds = &builds[..if has_other { 3 } else { 2 }];
    fs::write(directory.join("performance.svg"), picture(lines, builds))?;
    if let Some(path) = &options.json {
        fs::write(path, format!("{:#}\n", json(lines)))?;
    }
    println!("wrote {}", path.display());
    Ok(())
}

fn table(lines: &[Line], options: &Options) -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (builds, ratios) = match options.other {
        None => ("ours / stock", "the ratio ours / stock"),
        Some(_) => ("ours / stock / other", "the ratios ours / stock and ours / other"),
    };
    let mut text = format!(
        "MySQL {}, Linux {}, {cores} × {cpu}. {} rounds; data sets of {} MiB, {} small tables. \
         Each cell: {ratios} of the medians; then the medians, with the smallest and largest value: {builds}.\n\n\
         | | wall, s | CPU of both servers, s | network, MiB | extra RSS, MiB |\n|---|---|---|---|---|\n",
        Server::locate()?.version,
        kernel.trim(),
        options.rounds,
        options.mib,
        options.tables,
    );
    let (links, others): (Vec<&Line>, _) =
        lines.iter().partition(|line| line.scenario.link.is_some());
    for line in others {
        writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            line.scenario.name,
            line.cell(|sample| sample.wall),
            line.cell(|sample| sample.cpu),
            line.medians(0, |sample| sample.network),
            line.medians(0, |sample| sample.rss),
        )?;
    }
    for line in lines.iter().filter(|line| line.scenario.writers) {
        writeln!(
            text,
            "\n{}: {} transactions per second, which is {} of what it was in the seconds before.",
            line.scenario.name,
            line.cell(|sample| sample.transactions),
            line.medians(2, Sample::left),
        )?;
    }
    if !links.is_empty() {
        text += "\n| | ours / better of stock | wall, s: ours | stock | stock compressed | CPU of both servers, s | \
                 network, MiB |\n|---|---|---|---|---|---|---|\n";
    }
    for line in links {
        let wall = |build| line.spread(build, |sample| sample.wall).unwrap_or_default();
        let [stock, compressed, ours] =
            [Build::Stock, Build::StockCompressed, Build::Ours].map(wall);
        let best = if compressed.median < stock.median { compressed } else { stock };
        writeln!(
            text,
            "| {} | **{:.2}** | {ours} | {stock} | {compressed} | {} | {} |",
            line.scenario.name.trim_start_matches("link "),
            ours.median / best.median,
            line.medians(1, |sample| sample.cpu),
            line.medians(0, |sample| sample.network),
        )?;
    }
    Ok(text)
}

/// All samples, for programs.
fn json(lines: &[Line]) -> Value {
    let of = |sample: &Sample| {
        json!({
            "wall": sample.wall, "cpu": sample.cpu, "rss_mib": sample.rss, "data_mib": sample.data,
            "network_mib": sample.network, "file_copy_mib_s": sample.file_copy,
            "transactions": sample.transactions, "before": sample.before,
        })
    };
    let line = |line: &Line| {
        let builds = line.samples.iter().map(|(build, samples)| {
            (build.name().to_owned(), samples.iter().map(of).collect::<Value>())
        });
        json!({ "line": line.scenario.name, "builds": builds.collect::<serde_json::Map<_, _>>() })
    };
    lines.iter().map(line).collect()
}

/// What is drawn: whose figures ours are divided by, of what, and the colour.
type Bar = (Build, fn(&Sample) -> f64, &'static str);

const BARS: [Bar; 4] = [
    (Build::Stock, |sample| sample.wall, "#1b4f72"),
    (Build::Stock, |sample| sample.cpu, "#85c1e9"),
    (Build::Other, |sample| sample.wall, "#145a32"),
    (Build::Other, |sample| sample.cpu, "#82c99a"),
];

/// Bars of the ratios of each line; 1 is what ours is compared with.
fn picture(lines: &[Line], builds: &[Build]) -> String {
    const BAR: usize = 16;
    const LEFT: f64 = 240.0;
    const UNIT: f64 = 360.0;
    let bars: Vec<_> = BARS.into_iter().filter(|(build, ..)| builds.contains(build)).collect();
    let row = bars.len() * BAR + 12;
    let height = lines.len() * row + 60;
    let (with_other, mark) = match builds.contains(&Build::Other) {
        true => (" Blue: ours by stock; green: ours by the other build.", "equal"),
        false => ("", "stock"),
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<!-- SPDX-License-Identifier: GPL-2.0-only -->\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\">Wall time (dark), processor time of both servers (light). Shorter is better.{with_other}</text>\n"
    );
    for (index, line) in lines.iter().enumerate() {
        let y = 40 + index * row;
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\">{}</text>",
            y + bars.len() * BAR / 2 + 5,
            line.scenario.name
        );
        for (bar, (build, value, colour)) in bars.iter().enumerate() {
            let Some(ratio) = line.ratio(*build, *value) else { continue };
            let (top, width) = (y + bar * BAR + 2, ratio.min(1.4) * UNIT);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{width:.1}\" height=\"14\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{ratio:.2}</text>",
                LEFT + width + 4.0,
                top + 12,
            );
        }
    }
    let (x, bottom) = (LEFT + UNIT, height - 10);
    let _ = writeln!(
        svg,
        "<line x1=\"{x}\" y1=\"32\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#c0392b\"/><text x=\"{}\" y=\"{bottom}\">{mark}</text>\n</svg>",
        x + 4.0
    );
    svg
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::scenario::SCENARIOS;

    fn samples(walls: &[f64]) -> Vec<Sample> {
        walls.iter().map(|&wall| Sample { wall, ..Sample::default() }).collect()
    }

    /// Ours takes half the time of stock and a quarter of the other's; no processor time.
    fn line(builds: &[Build]) -> Line {
        let mut line = Line::new(&SCENARIOS[0], builds);
        for (build, wall) in [(Build::Stock, 2.0), (Build::Ours, 1.0), (Build::Other, 4.0)] {
            for sample in samples(&[wall]) {
                line.add(build, sample);
            }
        }
        line
    }

    const TWO: [Build; 2] = [Build::Stock, Build::Ours];
    const THREE: [Build; 3] = [Build::Stock, Build::Ours, Build::Other];

    #[test]
    fn medians() {
        let spread = |walls: &[f64]| Spread::of(&samples(walls), |sample| sample.wall);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn a_cell_has_a_ratio_for_each_build_compared_with() {
        let wall = |builds| line(builds).cell(|sample| sample.wall);
        assert_eq!(wall(&TWO), "**0.50**: 1.00 (1.00–1.00) / 2.00 (2.00–2.00)");
        assert_eq!(
            wall(&THREE),
            "**0.50** / **0.25**: 1.00 (1.00–1.00) / 2.00 (2.00–2.00) / 4.00 (4.00–4.00)"
        );
        assert_eq!(line(&TWO).cell(|sample| sample.cpu), "–: 0.00 (0.00–0.00) / 0.00 (0.00–0.00)");
    }

    #[test]
    fn the_picture_has_a_bar_for_each_ratio() {
        // One rectangle is the background.
        let bars = |builds: &[Build]| picture(&[line(builds)], builds).matches("<rect").count() - 1;
        assert_eq!((bars(&TWO), bars(&THREE)), (1, 2));
    }
}
