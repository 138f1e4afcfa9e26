//! Plots as SVG, written by hand: lines over categories, and bars in groups. The value axis is logarithmic, as the
//! slowest is hundreds of times slower than the fastest.

use std::fmt::Write as _;

/// One series of a plot; a value for each category, none where it was not measured.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) values: Vec<Option<f64>>,
}

/// The names around a plot.
pub(super) struct Titles<'a> {
    pub(super) title: &'a str,
    pub(super) categories: Vec<String>,
    /// What the categories are.
    pub(super) category_axis: &'a str,
    /// What the values are.
    pub(super) value_axis: &'a str,
}

/// Told apart also by those who see few colours, and on a white ground.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f6000", "#444444",
];

const WIDTH: f64 = 800.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 540.0;
const TOP: f64 = 48.0;
const LINES_HEIGHT: f64 = 300.0;
/// Width of a bar, and the space between two groups of bars.
const BAR: f64 = 15.0;
const GROUP_SPACE: f64 = 14.0;
/// Where the names of the groups end and their bars begin.
const BARS_LEFT: f64 = 230.0;

/// Lines over evenly spaced categories.
pub(super) fn lines(titles: &Titles<'_>, series: &[Series]) -> String {
    let bottom = TOP + LINES_HEIGHT;
    let scale = Scale::of(series);
    let x = |index: usize| {
        let steps = titles.categories.len().max(2) - 1;
        LEFT + 20.0 + (RIGHT - LEFT - 40.0) * index as f64 / steps as f64
    };
    let y = |value: f64| bottom - LINES_HEIGHT * scale.share(value);
    let mut svg = head(titles.title, bottom + 56.0);
    for tick in scale.ticks() {
        let y = y(tick);
        line(&mut svg, (LEFT, y), (RIGHT, y));
        text(&mut svg, (LEFT - 8.0, y + 4.0), "end", &number(tick));
    }
    for (index, category) in titles.categories.iter().enumerate() {
        text(&mut svg, (x(index), bottom + 20.0), "middle", category);
    }
    let middle = f64::midpoint(LEFT, RIGHT);
    text(
        &mut svg,
        (middle, bottom + 44.0),
        "middle",
        titles.category_axis,
    );
    text(
        &mut svg,
        (LEFT - 60.0, TOP - 12.0),
        "start",
        titles.value_axis,
    );
    for (series, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let points = series.values.iter().enumerate();
        let points: Vec<_> = points
            .filter_map(|(index, value)| Some((x(index), y((*value)?))))
            .collect();
        polyline(&mut svg, &points, colour);
    }
    legend(&mut svg, series);
    svg + "</svg>\n"
}

/// A group of horizontal bars for each category, one bar for each series, with its value.
pub(super) fn bars(titles: &Titles<'_>, series: &[Series]) -> String {
    let scale = Scale::of(series);
    let x = |value: f64| BARS_LEFT + (RIGHT - 40.0 - BARS_LEFT) * scale.share(value);
    let mut body = String::new();
    let mut y = TOP + 6.0;
    for (index, category) in titles.categories.iter().enumerate() {
        let first_y = y;
        for (series, colour) in series.iter().zip(COLOURS.iter().cycle()) {
            let Some(value) = series.values.get(index).copied().flatten() else {
                continue;
            };
            let width = x(value) - BARS_LEFT;
            let height = BAR - 2.0;
            let _written = writeln!(
                body,
                "<rect x=\"{BARS_LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
            );
            text(
                &mut body,
                (x(value) + 5.0, y + BAR - 4.0),
                "start",
                &number(value),
            );
            y += BAR;
        }
        let middle = f64::midpoint(first_y, y) + 3.0;
        text(&mut body, (BARS_LEFT - 8.0, middle), "end", category);
        y += GROUP_SPACE;
    }
    let mut svg = head(titles.title, y + 40.0);
    for tick in scale.ticks() {
        line(&mut svg, (x(tick), TOP), (x(tick), y));
        text(&mut svg, (x(tick), y + 16.0), "middle", &number(tick));
    }
    let middle = f64::midpoint(BARS_LEFT, RIGHT - 40.0);
    text(&mut svg, (middle, y + 34.0), "middle", titles.value_axis);
    text(&mut svg, (16.0, TOP - 4.0), "start", titles.category_axis);
    svg.push_str(&body);
    legend(&mut svg, series);
    svg + "</svg>\n"
}

/// A logarithmic axis over whole decades.
struct Scale {
    low: i32,
    high: i32,
}

impl Scale {
    fn of(series: &[Series]) -> Self {
        // Zero has no place on a logarithmic axis: it is drawn at its start.
        let values = || {
            let all = series.iter().flat_map(|series| series.values.iter());
            all.flatten().copied().filter(|value| *value > 0.0)
        };
        let lowest = values().fold(f64::INFINITY, f64::min);
        let highest = values().fold(0.0, f64::max);
        if !(lowest <= highest && highest.is_finite()) {
            return Self { low: 0, high: 1 };
        }
        // The lowest value is not to vanish into the axis.
        let low = (lowest * 0.99).log10().floor() as i32;
        let high = (highest.log10().ceil() as i32).max(low + 1);
        Self { low, high }
    }

    /// Where a value lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        share.clamp(0.0, 1.0)
    }

    /// The decades, and where they are few, steps between them.
    fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.high - self.low <= 3 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let decades = self.low..=self.high;
        let all =
            decades.flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
        all.filter(|tick| *tick <= 10_f64.powi(self.high) * 1.001)
            .collect()
    }
}

fn head(title: &str, height: f64) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let _written = writeln!(
        svg,
        "<text x=\"16\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{}</text>",
        escape(title)
    );
    svg
}

fn legend(svg: &mut String, series: &[Series]) {
    let colours = COLOURS.iter().cycle();
    for ((index, series), colour) in series.iter().enumerate().zip(colours) {
        let y = TOP + 10.0 + 20.0 * index as f64;
        let _written = writeln!(
            svg,
            "<rect x=\"{}\" y=\"{y}\" width=\"14\" height=\"10\" fill=\"{colour}\"/>",
            RIGHT + 14.0
        );
        text(svg, (RIGHT + 34.0, y + 9.0), "start", &series.name);
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _written = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn polyline(svg: &mut String, points: &[(f64, f64)], colour: &str) {
    let mut path = String::new();
    for (x, y) in points {
        let _written = write!(path, "{x:.1},{y:.1} ");
    }
    let _written = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        path.trim_end()
    );
    for (x, y) in points {
        let _written = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"
        );
    }
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, words: &str) {
    let _written = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
        at.0,
        at.1,
        escape(words)
    );
}

/// Short, with thousands told by a comma.
pub(super) fn number(value: f64) -> String {
    if value < 1.0 {
        // As many decimals as it takes to show two digits of it.
        let decimals = (1.0 - value.max(1e-6).log10().floor()) as usize;
        let text = format!("{value:.decimals$}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    if value < 10.0 {
        let text = format!("{value:.1}");
        return text.trim_end_matches(".0").to_owned();
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles() -> Titles<'static> {
        Titles {
            title: "a < b & \"c\"",
            categories: vec!["1".to_owned(), "64".to_owned()],
            category_axis: "connections",
            value_axis: "tickets/s",
        }
    }

    fn series(values: &[Option<f64>]) -> Vec<Series> {
        vec![Series {
            name: "x>y".to_owned(),
            values: values.to_vec(),
        }]
    }

    #[test]
    fn words_are_escaped() {
        assert_eq!(
            escape("a < b & \"c\" > d"),
            "a &lt; b &amp; &quot;c&quot; &gt; d"
        );
        for svg in [
            lines(&titles(), &series(&[Some(10.0), Some(1000.0)])),
            bars(&titles(), &series(&[Some(10.0), Some(1000.0)])),
        ] {
            assert!(svg.contains("a &lt; b &amp; &quot;c&quot;") && svg.contains("x&gt;y"));
        }
    }

    #[test]
    fn a_value_that_is_missing_leaves_no_point() {
        let points =
            |values: &[Option<f64>]| lines(&titles(), &series(values)).matches("<circle").count();
        assert_eq!(points(&[Some(10.0), Some(1000.0)]), 2);
        assert_eq!(points(&[Some(10.0), None]), 1);
        assert_eq!(points(&[]), 0);
    }

    #[test]
    fn the_axis_spans_whole_decades() {
        let scale = Scale::of(&series(&[Some(20.0), Some(90_000.0), Some(0.0)]));
        assert_eq!((scale.low, scale.high), (1, 5));
        assert_eq!((scale.share(10.0), scale.share(100_000.0)), (0.0, 1.0));
        assert_eq!(scale.share(0.0), 0.0);
        assert_eq!(scale.ticks().len(), 5);
        assert_eq!(
            Scale::of(&series(&[Some(2.0)])).ticks(),
            [1.0, 2.0, 5.0, 10.0]
        );
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (1_234_567.0, "1,234,567"),
            (1000.0, "1,000"),
            (999.6, "1,000"),
            (12.4, "12"),
            (2.0, "2"),
            (2.55, "2.5"),
            (0.7, "0.7"),
            (0.012, "0.012"),
            (0.0, "0"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected, "{value}");
        }
    }
}
