//! Results as pictures (SVG): bars of ratios, lines of times.

use crate::times::PERCENTILES;
use plotters::coord::Shift;
use plotters::coord::combinators::LogCoord;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde_json::Value;
use std::error::Error;
use std::ops::Range;

const WIDTH: u32 = 960;
const HEIGHT: u32 = 540;
/// Pixels for the names of series beside the lines.
const LEGEND: u32 = 170;
const FONT: &str = "sans-serif";
/// Eight colours that are told apart without telling red from green (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
    RGBColor(0, 0, 0),
];

/// A name with its points.
#[derive(Clone, Debug)]
pub struct Series {
    /// What stands in the legend.
    pub name: String,
    /// Points by ascending x; above zero where an axis is logarithmic.
    pub points: Vec<(f64, f64)>,
}

/// How the horizontal axis counts.
#[derive(Clone, Debug)]
pub enum Across {
    /// In equal steps from zero.
    Linear(String),
    /// In powers of ten.
    Logarithmic(String),
    /// By these names, at 0, 1, 2 and so on.
    Names(Vec<String>),
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The powers of ten around values, at least one apart; values that have none don't count.
fn decades(values: impl Iterator<Item = f64>) -> Range<f64> {
    let logs = values.filter(|v| *v > 0.0 && v.is_finite()).map(f64::log10);
    let (low, high) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    if low > high {
        return 1.0..10.0;
    }
    let (low, high) = (low.floor(), high.ceil());
    let high = if high > low { high } else { low + 1.0 };
    10f64.powf(low)..10f64.powf(high)
}

/// As an axis: a little longer, as powers of ten are not exact and those at its ends are to be marked.
fn axis(range: Range<f64>) -> LogCoord<f64> {
    (range.start * 0.999..range.end * 1.001).log_scale().into()
}

/// A number of a logarithmic axis: the whole powers and their halves without needless digits.
fn tick(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{}G", round(v / 1e9)),
        v if v >= 1e6 => format!("{}M", round(v / 1e6)),
        v if v >= 1e4 => format!("{}k", round(v / 1e3)),
        v => round(v).to_string(),
    }
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn colour(at: usize) -> RGBColor {
    COLOURS[at % COLOURS.len()]
}

fn picture(
    height: u32,
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn Error>>,
) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    Ok(svg)
}

/// Bars from 1 to each ratio on a logarithmic axis: down is faster than what it is held against, up is slower.
pub fn ratios(title: &str, bars: &[(String, f64)]) -> Result<String, Box<dyn Error>> {
    let finite = |(_, ratio): &(String, f64)| Some(*ratio).filter(|r| *r > 0.0 && r.is_finite());
    let known = || bars.iter().filter_map(finite);
    // Room for the numbers at the bars' ends.
    let range = known().fold(1.0, f64::min) / 1.6..known().fold(1.0, f64::max) * 1.6;
    let count = bars.len().max(1) as f64;
    let names: Vec<String> = bars.iter().map(|(name, _)| name.clone()).collect();
    picture(HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(title, (FONT, 20))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(-0.5..count - 0.5, range.log_scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_desc("Strandline's time by the fastest peer's")
            .y_label_formatter(&|v| tick(*v))
            .label_style((FONT, 13))
            .light_line_style(WHITE)
            .draw()?;
        chart.draw_series(
            bars.iter()
                .enumerate()
                .filter_map(|(at, bar)| Some((at as f64, finite(bar)?)))
                .map(|(x, ratio)| {
                    let fill = if ratio <= 1.0 { COLOURS[0] } else { COLOURS[1] };
                    Rectangle::new([(x - 0.36, 1.0), (x + 0.36, ratio)], fill.filled())
                }),
        )?;
        let ends = [(-0.5, 1.0), (count - 0.5, 1.0)];
        chart.draw_series(LineSeries::new(ends, BLACK.stroke_width(1)))?;
        let plane = chart.plotting_area();
        for (x, ratio) in
            (bars.iter().enumerate()).filter_map(|(at, bar)| Some((at as f64, finite(bar)?)))
        {
            let (vertical, beyond) = match ratio <= 1.0 {
                true => (VPos::Top, 4),
                false => (VPos::Bottom, -4),
            };
            let style = (FONT, 13).into_text_style(area);
            let style = style.pos(Pos::new(HPos::Center, vertical));
            let text = Text::new(format!("{ratio:.2}"), (0, beyond), style);
            plane.draw(&(EmptyElement::at((x, ratio)) + text))?;
        }
        let places = (0..names.len()).map(|at| plane.map_coordinate(&(at as f64, 1.0)).0);
        names_below(area, plane.get_pixel_range().1.end, places, &names)
    })
}

/// Writes names under a chart whose lower edge is at `bottom`, each at its place; in pixels of the whole picture.
fn names_below(
    area: &Area<'_>,
    bottom: i32,
    places: impl Iterator<Item = i32>,
    names: &[String],
) -> Result<(), Box<dyn Error>> {
    let (left, top) = area.get_base_pixel();
    for (place, name) in places.zip(names) {
        let below = Pos::new(HPos::Center, VPos::Top);
        let style = (FONT, 13).into_text_style(area).pos(below);
        area.draw(&Text::new(
            name.clone(),
            (place - left, bottom - top + 8),
            style,
        ))?;
    }
    Ok(())
}

/// Lines of milliseconds on a logarithmic axis.
pub fn lines(title: &str, across: &Across, series: &[Series]) -> Result<String, Box<dyn Error>> {
    picture(HEIGHT, |area| draw_lines(area, title, across, series))
}

/// Times at each percentile by kind of statement, and below them the times of all statements second by second: from
/// the documents of [`Times::by_kind`](crate::times::Times::by_kind) and [`Times::by_second`](crate::times::Times::by_second).
pub fn latencies(title: &str, kinds: &Value, seconds: &Value) -> Result<String, Box<dyn Error>> {
    let mut at_percentiles = Vec::new();
    for (name, times) in kinds.as_object().into_iter().flatten() {
        let points = PERCENTILES
            .iter()
            .enumerate()
            .filter_map(|(at, (key, _, _))| Some((at as f64, times[*key].as_f64()?)));
        at_percentiles.push(Series {
            name: name.clone(),
            points: points.collect(),
        });
    }
    let seconds = seconds.as_array().map_or(&[][..], Vec::as_slice);
    let by_second = PERCENTILES
        .iter()
        .filter(|(key, _, _)| ["p50_ms", "p99_ms", "max_ms"].contains(key))
        .map(|(key, name, _)| Series {
            name: (*name).to_owned(),
            points: seconds
                .iter()
                .filter_map(|second| Some((second["second"].as_f64()?, second[*key].as_f64()?)))
                .collect(),
        })
        .collect::<Vec<_>>();
    let names = PERCENTILES.iter().map(|(_, name, _)| (*name).to_owned());
    let names = Across::Names(names.collect());
    picture(2 * HEIGHT, |area| {
        let (upper, lower) = area.split_vertically(HEIGHT);
        let above = format!("{title}: milliseconds at each percentile");
        draw_lines(&upper, &above, &names, &at_percentiles)?;
        let below = format!("{title}: milliseconds of the answers of each second");
        let across = Across::Linear("second".to_owned());
        draw_lines(&lower, &below, &across, &by_second)
    })
}

fn draw_lines(
    area: &Area<'_>,
    title: &str,
    across: &Across,
    series: &[Series],
) -> Result<(), Box<dyn Error>> {
    let points = || series.iter().flat_map(|s| s.points.iter().copied());
    let down = axis(decades(points().map(|(_, y)| y)));
    let (left, right) = area.split_horizontally(WIDTH - LEGEND);
    let mut builder = ChartBuilder::on(&left);
    builder
        .caption(title, (FONT, 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64);
    // The two kinds of axes are two types; what is drawn on them is the same.
    macro_rules! draw {
        ($range:expr, $description:expr, $labels:expr) => {{
            let mut chart = builder.build_cartesian_2d($range, down)?;
            chart
                .configure_mesh()
                .x_desc($description)
                .y_desc("milliseconds")
                .x_labels($labels)
                .x_label_formatter(&|v| tick(*v))
                .y_label_formatter(&|v| tick(*v))
                .label_style((FONT, 13))
                .light_line_style(WHITE)
                .draw()?;
            for (at, one) in series.iter().enumerate() {
                let style = colour(at).stroke_width(2);
                chart.draw_series(LineSeries::new(one.points.iter().copied(), style))?;
                let marks = one.points.iter().map(|point| mark(at, *point));
                chart.draw_series(marks)?;
            }
            if let Across::Names(names) = across {
                let plane = chart.plotting_area();
                let place = |at: usize| plane.map_coordinate(&(at as f64, down_from(series))).0;
                let bottom = plane.get_pixel_range().1.end;
                names_below(&left, bottom, (0..names.len()).map(place), names)?;
            }
        }};
    }
    let furthest = points().map(|(x, _)| x).fold(1.0, f64::max);
    match across {
        Across::Linear(description) => draw!(0.0..furthest, description, 10),
        Across::Logarithmic(description) => {
            draw!(
                decades(points().map(|(x, _)| x)).log_scale(),
                description,
                10
            )
        }
        Across::Names(names) => draw!(-0.3..names.len() as f64 - 0.7, "", 0),
    }
    legend(&right, series)
}

/// Some value that is on the axis.
fn down_from(series: &[Series]) -> f64 {
    decades(series.iter().flat_map(|s| s.points.iter().map(|p| p.1))).start
}

/// A point's mark: after eight colours it is hollow, after sixteen hollow and larger.
fn mark<P>(at: usize, point: P) -> Circle<P, i32> {
    match at / COLOURS.len() {
        0 => Circle::new(point, 3, colour(at).filled()),
        1 => Circle::new(point, 4, colour(at).stroke_width(1)),
        _ => Circle::new(point, 6, colour(at).stroke_width(1)),
    }
}

fn legend(area: &Area<'_>, series: &[Series]) -> Result<(), Box<dyn Error>> {
    for (at, one) in series.iter().enumerate() {
        let y = 60 + 20 * at as i32;
        let style = colour(at).stroke_width(2);
        area.draw(&PathElement::new([(0, y), (22, y)], style))?;
        area.draw(&mark(at, (11, y)))?;
        let beside = Pos::new(HPos::Left, VPos::Center);
        let style = (FONT, 13).into_text_style(area).pos(beside);
        area.draw(&Text::new(one.name.clone(), (30, y), style))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_axis_reaches_over_its_values_in_powers_of_ten() {
        assert_eq!(decades([0.3, 20.0].into_iter()), 0.1..100.0);
        assert_eq!(decades([10.0].into_iter()), 10.0..100.0);
        assert_eq!(decades([0.0, f64::NAN].into_iter()), 1.0..10.0);
    }

    #[test]
    fn ticks_are_short() {
        let ticks = [0.01, 1.0, 1_000.0, 60_000.0, 6e6, 1e9].map(tick);
        assert_eq!(ticks, ["0.01", "1", "1000", "60k", "6M", "1G"]);
    }

    #[test]
    fn every_bar_and_every_series_is_named() {
        let bars = [
            ("Q1.1".to_owned(), 0.2),
            ("G2".to_owned(), 3.0),
            ("P1".to_owned(), f64::NAN),
        ];
        let svg = ratios("Ratios", &bars).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["Ratios", "Q1.1", "G2", "0.20", "3.00"] {
            assert!(svg.contains(text), "{text}");
        }
        let series = (0..18).map(|n| Series {
            name: format!("S{n}"),
            points: vec![(6e6, 1.0 + f64::from(n)), (6e7, 10.0 + f64::from(n))],
        });
        let series: Vec<Series> = series.collect();
        let svg = lines("Growth", &Across::Logarithmic("rows".to_owned()), &series).unwrap();
        assert!(series.iter().all(|one| svg.contains(&one.name)));
    }

    #[test]
    fn seconds_without_answers_leave_gaps() {
        let kinds = json!({"point": {"p50_ms": 1.0, "p99_ms": 3.0, "max_ms": 9.0}});
        let seconds = json!([{"second": 0, "p50_ms": 1.0}, {"second": 1, "p50_ms": null}]);
        let svg = latencies("Closed", &kinds, &seconds).unwrap();
        assert!(svg.contains("point") && svg.contains("p99.9"));
        assert!(latencies("Nothing", &json!({}), &json!([])).is_ok());
    }
}
