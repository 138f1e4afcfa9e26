//! Money without rounding: decimals read from text, and an exact sum of them.

use rust_decimal::Decimal;

use crate::ticket::{DECIMAL_DIGITS_MAX, DECIMAL_SCALE_MAX};

/// The first mantissa with a digit too many.
const MANTISSA_END: u128 = 10u128.pow(DECIMAL_DIGITS_MAX);

/// Reads `-?digits[.digits]`, keeping the scale as written; `None` for anything else.
pub(super) fn decimal(text: &str) -> Option<Decimal> {
    let (is_negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let mut mantissa = 0;
    let mut point = None;
    for (index, &byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            mantissa = mantissa * 10 + u128::from(digit);
            // Leading zeros leave the mantissa at zero, so its size alone tells how many digits
            // count.
            if mantissa >= MANTISSA_END {
                return None;
            }
        } else if byte == b'.' && point.is_none() && index > 0 {
            point = Some(index);
        } else {
            return None;
        }
    }
    let last = digits.len().checked_sub(1)?;
    let scale = u32::try_from(last - point.unwrap_or(last)).ok()?;
    if point == Some(last) || scale > DECIMAL_SCALE_MAX {
        return None;
    }
    Some(assemble(mantissa, is_negative, scale))
}

/// The decimal of these parts, which must be in range; zero loses its sign.
#[allow(clippy::cast_possible_truncation)] // Cutting 32 bits at a time is the point.
fn assemble(mantissa: u128, is_negative: bool, scale: u32) -> Decimal {
    let (low, mid, high) = (
        mantissa as u32,
        (mantissa >> 32) as u32,
        (mantissa >> 64) as u32,
    );
    Decimal::from_parts(low, mid, high, is_negative, scale)
}

/// The scale up to which a price is summed the short way.
const SHORT_SCALE: usize = 9;

/// How many billionths a unit of each short scale is worth.
const BILLIONTHS: [i64; SHORT_SCALE + 1] = [
    1_000_000_000,
    100_000_000,
    10_000_000,
    1_000_000,
    100_000,
    10_000,
    1_000,
    100,
    10,
    1,
];

/// 1 in units of the smallest scale.
const ONE: i128 = 10i128.pow(DECIMAL_SCALE_MAX);

/// 0.000000001 in units of the smallest scale.
const BILLIONTH: i128 = ONE / BILLIONTHS[0] as i128;

/// An exact sum of decimals.
///
/// Ordinary money goes into one number of billionths. What does not fit there, by its scale or its
/// size, is cut at the point into two further numbers. Each price adds less than 10^28 to any of
/// the three, and an `i128` holds 10^10 of those: at six bytes for the shortest line, no sum can
/// overflow before a text of 60 GB.
#[derive(Clone, Copy, Default)]
pub(super) struct Sum {
    billionths: i128,
    whole: i128,
    /// In units of the smallest scale.
    fraction: i128,
}

impl Sum {
    pub(super) fn add(&mut self, price: Decimal) {
        let unit = usize::try_from(price.scale())
            .ok()
            .and_then(|scale| BILLIONTHS.get(scale));
        match (i64::try_from(price.mantissa()), unit) {
            (Ok(mantissa), Some(&unit)) => {
                self.billionths += i128::from(mantissa) * i128::from(unit);
            }
            _ => self.add_long(price),
        }
    }

    #[cold]
    fn add_long(&mut self, price: Decimal) {
        let one = 10i128.pow(price.scale());
        self.whole += price.mantissa() / one;
        self.fraction += price.mantissa() % one * (ONE / one);
    }

    pub(super) fn equals(mut self, total: Decimal) -> bool {
        self.add(-total);
        self.is_zero()
    }

    /// Whether the three numbers together are zero; often two of them were never touched.
    fn is_zero(self) -> bool {
        if self.whole == 0 && self.fraction == 0 {
            return self.billionths == 0;
        }
        let billion = i128::from(BILLIONTHS[0]);
        let fraction = self.fraction + self.billionths % billion * BILLIONTH;
        let whole = self.whole + self.billionths / billion + fraction / ONE;
        whole == 0 && fraction % ONE == 0
    }
}
