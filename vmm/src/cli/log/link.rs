//! `lockstep log stat --link`: how long outputs would wait for a backup behind a link of this delay and rate.

use std::str::FromStr;

/// Bits of a byte, and nanoseconds of a millisecond.
const BITS: f64 = 8.0;
const MS: f64 = 1e6;

/// A link to a backup: `MS,MBIT`.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Delay in one direction, nanoseconds.
    delay_ns: f64,
    /// Nanoseconds that a byte takes.
    byte_ns: f64,
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Link, String> {
        let bad = || {
            format!(
                "`{text}` is no MS,MBIT, like 0.5,1000: a delay in one direction, milliseconds, and a rate, Mbit/s"
            )
        };
        let (delay, rate) = text.split_once(',').ok_or_else(bad)?;
        let number = |text: &str| text.parse::<f64>().ok().filter(|it| it.is_finite());
        let delay = number(delay).filter(|it| *it >= 0.0).ok_or_else(bad)?;
        let rate = number(rate).filter(|it| *it > 0.0).ok_or_else(bad)?;
        Ok(Link {
            delay_ns: delay * MS,
            byte_ns: BITS * 1000.0 / rate,
        })
    }
}

/// The log on its way over a link.
#[derive(Debug)]
pub struct Holds {
    link: Link,
    /// When the link has sent what it has, guest time.
    free_ns: f64,
    /// For each output, how long it waits, nanoseconds.
    holds: Vec<f64>,
}

impl Holds {
    /// Nothing is on its way.
    pub fn new(link: Link) -> Holds {
        Holds {
            link,
            free_ns: 0.0,
            holds: Vec::new(),
        }
    }

    /// An entry of so many bytes is made at this guest time. Does an output wait for it?
    pub fn entry(&mut self, now_ns: u64, bytes: u64, is_output: bool) {
        let now = now_ns as f64;
        self.free_ns = self.free_ns.max(now) + bytes as f64 * self.link.byte_ns;
        if is_output {
            // The entry arrives, and its acknowledgement comes back.
            self.holds
                .push(self.free_ns + 2.0 * self.link.delay_ns - now);
        }
    }

    /// How long outputs wait: median, 99 of 100, longest; milliseconds.
    pub fn told(mut self) -> Option<[f64; 3]> {
        self.holds.sort_by(f64::total_cmp);
        let last = self.holds.len().checked_sub(1)?;
        let of = |hundredth: usize| self.holds[last * hundredth / 100] / MS;
        Some([of(50), of(99), of(100)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_waits_for_the_log_before_it_and_the_way_back() {
        // A byte takes 8 µs.
        let mut holds = Holds::new("2,1".parse().unwrap());
        holds.entry(0, 125, true);
        // It waits behind the first entry.
        holds.entry(0, 125, true);
        // The link is free again.
        holds.entry(1_000_000_000, 125, true);
        assert_eq!(holds.holds, [5e6, 6e6, 5e6]);
        assert_eq!(holds.told(), Some([5.0, 5.0, 6.0]));
        assert_eq!(Holds::new("0,1".parse().unwrap()).told(), None);
    }

    #[test]
    fn what_is_no_link_is_refused() {
        for bad in ["", "1", "1,", "1,0", "-1,5", "1,inf", "x,1"] {
            assert!(bad.parse::<Link>().is_err(), "{bad}");
        }
    }
}
