//! Charts as SVG files.

use anyhow::{Result, anyhow};
use plotters::{
    backend::SVGBackend,
    drawing::{DrawingArea, IntoDrawingArea as _},
    element::{PathElement, Rectangle, Text},
    style::{
        BLACK, Color as _, IntoFont as _, RGBColor, TextStyle, WHITE,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{Bar, Chart, Spread};

const WIDTH: i32 = 900;
/// Where bars begin, right of their names.
const LEFT: i32 = 170;
/// Where the longest bar ends, left of its figure.
const RIGHT: i32 = 820;
const TOP: i32 = 60;
const BAR: i32 = 16;
const GROUP_GAP: i32 = 26;
const OURS: RGBColor = RGBColor(0xd9, 0x5f, 0x0e);
const OTHERS: RGBColor = RGBColor(0x6b, 0x8e, 0xb5);
const NOISE: RGBColor = RGBColor(0xbb, 0xbb, 0xbb);

type Canvas<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws a chart: horizontal bars from nought, whiskers from the least to the most, and behind each group a band where
/// the reference differs from itself.
///
/// # Errors
/// When there is nothing to draw.
pub(super) fn draw(chart: &Chart) -> Result<String> {
    let spreads = || chart.groups.iter().flat_map(|group| group.bars.iter().map(|bar| bar.value));
    let most = spreads().map(|spread| spread.max).chain(chart.line).fold(0.0, f64::max);
    if most <= 0.0 {
        return Err(anyhow!("the chart has no bars"));
    }
    let rows: usize = chart.groups.iter().map(|group| group.bars.len()).sum();
    let height = TOP + length(rows) * BAR + length(chart.groups.len()) * GROUP_GAP + 10;
    let scale = Scale { most };
    let mut svg = String::new();
    {
        let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
        let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        paint(&canvas, chart, &scale, height).map_err(|error| anyhow!("{error}"))?;
    }
    Ok(svg)
}

/// Where on the canvas a figure is.
struct Scale {
    most: f64,
}

impl Scale {
    fn at(&self, value: f64) -> i32 {
        // Within the canvas' width.
        LEFT + (value / self.most * f64::from(RIGHT - LEFT)).round() as i32
    }
}

fn length(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX / BAR / 4)
}

type Drawn = std::result::Result<(), plotters::drawing::DrawingAreaErrorKind<std::io::Error>>;

fn paint(canvas: &Canvas<'_>, chart: &Chart, scale: &Scale, height: i32) -> Drawn {
    canvas.fill(&WHITE)?;
    let font = |size: i32| TextStyle::from(("sans-serif", size).into_font());
    let right = |size| font(size).pos(Pos::new(HPos::Right, VPos::Center));
    let left = |size| font(size).pos(Pos::new(HPos::Left, VPos::Center));
    canvas.draw(&Text::new(chart.title.clone(), (14, 20), left(18)))?;
    canvas.draw(&Text::new(chart.about.clone(), (14, 42), left(13)))?;
    let mut y = TOP;
    for group in &chart.groups {
        let bottom = y + GROUP_GAP - 4 + length(group.bars.len()) * BAR;
        if let Some(noise) = group.noise {
            let (from, to) = around(noise);
            let band = [(scale.at(from), y + 4), (scale.at(to), bottom)];
            canvas.draw(&Rectangle::new(band, NOISE.mix(0.45).filled()))?;
        }
        canvas.draw(&Text::new(group.label.clone(), (14, y + 12), left(14)))?;
        y += GROUP_GAP - 4;
        for bar in &group.bars {
            paint_bar(canvas, bar, scale, y, &right(12), &left(12))?;
            y += BAR;
        }
        y += 4;
    }
    if let Some(line) = chart.line {
        let x = scale.at(line);
        canvas.draw(&PathElement::new([(x, TOP), (x, height - 10)], BLACK.stroke_width(1)))?;
    }
    canvas.present()
}

/// The band of a reference's ratio to itself, which has 1 in it.
fn around(noise: Spread) -> (f64, f64) {
    (noise.min.min(1.0), noise.max.max(1.0))
}

fn paint_bar(
    canvas: &Canvas<'_>,
    bar: &Bar,
    scale: &Scale,
    y: i32,
    name: &TextStyle<'_>,
    figure: &TextStyle<'_>,
) -> Drawn {
    let is_ours = bar.series == "rnet" || bar.series.starts_with("rnet");
    let colour = if is_ours { OURS } else { OTHERS };
    let middle = y + BAR / 2;
    canvas.draw(&Text::new(bar.series.clone(), (LEFT - 8, middle), name.clone()))?;
    let Spread { median, min, max } = bar.value;
    canvas.draw(&Rectangle::new([(LEFT, y + 2), (scale.at(median), y + BAR - 2)], colour.filled()))?;
    canvas
        .draw(&PathElement::new([(scale.at(min), middle), (scale.at(max), middle)], BLACK.stroke_width(1)))?;
    for end in [min, max] {
        let x = scale.at(end);
        canvas.draw(&PathElement::new([(x, middle - 3), (x, middle + 3)], BLACK.stroke_width(1)))?;
    }
    canvas.draw(&Text::new(format!("{median:.2}"), (scale.at(max.max(median)) + 6, middle), figure.clone()))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::sample, *};

    #[test]
    fn names_and_figures_are_in_the_picture() {
        let report = sample();
        let svg = draw(&report.parts[0].part.charts[0]).unwrap();
        for text in ["Ratio to iptables", "connect/request/close", "rnet", "1.50"] {
            assert!(svg.contains(text), "{text} is missing:\n{svg}");
        }
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn bars_are_as_long_as_their_figures() {
        let scale = Scale { most: 2.0 };
        assert_eq!(scale.at(0.0), LEFT);
        assert_eq!(scale.at(1.0), (LEFT + RIGHT) / 2);
        assert_eq!(scale.at(2.0), RIGHT);
    }

    #[test]
    fn a_chart_without_bars_is_not_drawn() {
        assert!(draw(&Chart::ratios("x", "x", "x").without_line()).is_err());
    }

    impl Chart {
        fn without_line(mut self) -> Self {
            self.line = None;
            self
        }
    }
}
