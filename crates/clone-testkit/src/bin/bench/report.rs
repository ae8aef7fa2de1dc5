// SPDX-License-Identifier: GPL-2.0-only

//! The table and the picture.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use clone_testkit::anyhow::{Context, Result};
use clone_testkit::server::Server;

use crate::measure::Sample;
use crate::options::Options;
use crate::scenario::Scenario;

/// A scenario and what was measured.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) scenario: Scenario,
    pub(crate) stock: Vec<Sample>,
    pub(crate) ours: Vec<Sample>,
}

/// Median, smallest and largest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(samples: &[Sample], value: fn(&Sample) -> f64) -> Self {
        let mut values: Vec<f64> = samples.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Self { median: 0.0, min: 0.0, max: 0.0 };
        };
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Self { median, min, max }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}–{:.2})", self.median, self.min, self.max)
    }
}

impl Line {
    fn both(&self, value: fn(&Sample) -> f64) -> (Spread, Spread) {
        (Spread::of(&self.stock, value), Spread::of(&self.ours, value))
    }

    /// Ours by stock, medians.
    fn ratio(&self, value: fn(&Sample) -> f64) -> f64 {
        let (stock, ours) = self.both(value);
        if stock.median == 0.0 { f64::NAN } else { ours.median / stock.median }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wall_stock, wall_ours) = self.both(|sample| sample.wall);
        let (cpu_stock, cpu_ours) = self.both(|sample| sample.cpu);
        let (rss_stock, rss_ours) = self.both(|sample| sample.rss);
        let (net_stock, net_ours) = self.both(|sample| sample.network);
        let (tps_stock, tps_ours) = self.both(|sample| sample.transactions);
        write!(
            f,
            "{:40} wall {:.2} {wall_stock} -> {wall_ours}  cpu {:.2} {cpu_stock} -> {cpu_ours}  \
             net {:.0} -> {:.0} of {:.0} MiB  rss {:.0} -> {:.0}",
            self.scenario.name,
            self.ratio(|sample| sample.wall),
            self.ratio(|sample| sample.cpu),
            net_stock.median,
            net_ours.median,
            self.both(|sample| sample.data).1.median,
            rss_stock.median,
            rss_ours.median,
        )?;
        if self.scenario.rate != 0 {
            let (left_stock, left_ours) = self.both(Sample::left);
            write!(
                f,
                "  transactions/s {tps_stock} -> {tps_ours}, of those before {left_stock} -> {left_ours}"
            )?;
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
    fs::write(directory.join("performance.svg"), picture(lines))?;
    println!("wrote {}", path.display());
    Ok(())
}

fn table(lines: &[Line], options: &Options) -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!(
        "MySQL {}, Linux {}, {cores} × {cpu}. {} rounds; data sets of {} MiB, the large table {} MiB, {} small tables. \
         Each cell: ours / stock, the ratio of the medians; then both medians with the smallest and largest value.\n\n\
         | | wall, s | CPU of both servers, s | network, MiB | peak RSS, MiB |\n|---|---|---|---|---|\n",
        Server::locate()?.version,
        kernel.trim(),
        options.rounds,
        options.mib,
        options.large_mib,
        options.tables,
    );
    for line in lines {
        let cell = |value: fn(&Sample) -> f64, goal: f64| {
            let (stock, ours) = line.both(value);
            let ratio = line.ratio(value);
            let verdict = match goal {
                0.0 => String::new(),
                goal if ratio <= goal => format!(" (goal {goal:.2})"),
                goal => format!(" (goal {goal:.2} missed)"),
            };
            format!("**{ratio:.2}**{verdict}: {ours} / {stock}")
        };
        let plain = |value: fn(&Sample) -> f64| {
            let (stock, ours) = line.both(value);
            format!("{:.0} / {:.0}", ours.median, stock.median)
        };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            line.scenario.name,
            cell(|sample| sample.wall, line.scenario.goal.0),
            cell(|sample| sample.cpu, line.scenario.goal.1),
            plain(|sample| sample.network),
            plain(|sample| sample.rss),
        )?;
    }
    for line in lines.iter().filter(|line| line.scenario.rate != 0) {
        let (stock, ours) = line.both(|sample| sample.transactions);
        let left = line.both(Sample::left);
        writeln!(
            text,
            "\n{}: **{:.2}**: {ours} / {stock} transactions per second, which is {:.2} / {:.2} of what it was in the seconds before.",
            line.scenario.name,
            line.ratio(|sample| sample.transactions),
            left.1.median,
            left.0.median,
        )?;
    }
    Ok(text)
}

/// Bars of the two ratios of each line; stock is 1.
fn picture(lines: &[Line]) -> String {
    const ROW: usize = 44;
    const LEFT: f64 = 290.0;
    const UNIT: f64 = 320.0;
    let height = lines.len() * ROW + 60;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"780\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<!-- SPDX-License-Identifier: GPL-2.0-only -->\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\">Ours by stock: wall time (dark), processor time of both servers (light). Shorter is better.</text>\n"
    );
    for (index, line) in lines.iter().enumerate() {
        let y = 40 + index * ROW;
        let _ = writeln!(svg, "<text x=\"10\" y=\"{}\">{}</text>", y + 20, line.scenario.name);
        let ratios = [(line.ratio(|s| s.wall), "#1b4f72"), (line.ratio(|s| s.cpu), "#85c1e9")];
        for (bar, (ratio, colour)) in ratios.into_iter().enumerate() {
            let (top, width) =
                (y + bar * 16 + 2, if ratio.is_finite() { ratio.min(1.4) * UNIT } else { 0.0 });
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
        "<line x1=\"{x}\" y1=\"32\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#c0392b\"/><text x=\"{}\" y=\"{bottom}\">stock</text>\n</svg>",
        x + 4.0
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(walls: &[f64]) -> Vec<Sample> {
        walls.iter().map(|&wall| Sample { wall, ..Sample::default() }).collect()
    }

    #[test]
    fn medians() {
        let spread = |walls: &[f64]| Spread::of(&samples(walls), |sample| sample.wall);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(spread(&[4.0, 1.0]).median, 2.5);
        assert_eq!(spread(&[]).median, 0.0);
    }
}
