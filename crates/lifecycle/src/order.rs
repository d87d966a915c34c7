//! The position of a version among the versions of its key.

use crate::time::UnixMs;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// What the orders of a source are made of. Orders of different bases are never compared (V9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Basis {
    /// The source stamps each write of a key with a sequencer that grows.
    Sequencer,
    /// The source has no usable sequencer: event time, which ties and steps back, so that only a look decides.
    Time,
}

/// `(sequencer | time, sub)`: where a version stands among the versions of its key.
///
/// `sub` orders what the source itself gave no order of its own: copies made by a look or by `undelete` stand at the
/// greatest known position with the next `sub`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    basis: Basis,
    rank: u128,
    sub: u32,
}

impl Order {
    /// From a sequencer as S3 events carry it: hex digits, compared as strings after padding the shorter one with zeros
    /// on the right (S3 user guide, "Event message structure"). `None` when it is not 1 to 32 hex digits.
    pub fn from_sequencer(hex: &str) -> Option<Order> {
        if hex.is_empty() || hex.len() > 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let digits = u128::from_str_radix(hex, 16).ok()?;
        let pad = 4 * (32 - hex.len() as u32);
        Some(Order { basis: Basis::Sequencer, rank: digits.checked_shl(pad).unwrap_or(0), sub: 0 })
    }

    /// From an event's time, for sources without a sequencer.
    pub fn from_time(time: UnixMs) -> Order {
        Order { basis: Basis::Time, rank: u128::try_from(time.0).unwrap_or(0), sub: 0 }
    }

    /// Below every order that a source gives.
    pub fn lowest(basis: Basis) -> Order {
        Order { basis, rank: 0, sub: 0 }
    }

    /// The order right above this one that no event can have.
    pub fn next_sub(self) -> Order {
        Order { sub: self.sub.saturating_add(1), ..self }
    }

    /// What it is made of.
    pub fn basis(self) -> Basis {
        self.basis
    }

    /// The position among the sub-orders of one sequencer or time; 0 for what an event gave.
    pub fn sub(self) -> u32 {
        self.sub
    }
}

impl PartialOrd for Order {
    /// `None` across bases (V9).
    fn partial_cmp(&self, other: &Order) -> Option<Ordering> {
        (self.basis == other.basis).then(|| (self.rank, self.sub).cmp(&(other.rank, other.sub)))
    }
}

impl fmt::Display for Order {
    /// `s<hex>` or `t<milliseconds>`, then `_<sub>` when it has one. Trailing zeros of a sequencer carry nothing.
    /// This text stands in copy keys and rows: [`Order::from_str`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.basis {
            Basis::Sequencer => {
                let hex = format!("{:032x}", self.rank);
                let hex = hex.trim_end_matches('0');
                write!(f, "s{}", if hex.is_empty() { "0" } else { hex })?;
            }
            Basis::Time => write!(f, "t{:013}", self.rank)?,
        }
        match self.sub {
            0 => Ok(()),
            sub => write!(f, "_{sub}"),
        }
    }
}

/// The text is no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no order: expected s<hex> or t<milliseconds>, then _<n> or nothing")]
pub struct BadOrder(pub String);

impl FromStr for Order {
    type Err = BadOrder;

    fn from_str(text: &str) -> Result<Order, BadOrder> {
        let bad = || BadOrder(text.to_owned());
        let (position, sub) = match text.split_once('_') {
            Some((position, sub)) => (position, sub.parse().map_err(|_| bad())?),
            None => (text, 0),
        };
        let order = match position.split_at_checked(1) {
            Some(("s", hex)) => Order::from_sequencer(hex).ok_or_else(bad)?,
            Some(("t", ms)) => Order { basis: Basis::Time, rank: ms.parse::<u64>().map_err(|_| bad())?.into(), sub: 0 },
            _ => return Err(bad()),
        };
        Ok(Order { sub, ..order })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert_eq, proptest};

    #[test]
    fn sequencers_compare_as_right_padded_strings() {
        let order = |hex| Order::from_sequencer(hex).expect("hex");
        assert!(order("0055AED6DCD90281E5") < order("0055AED6DCD90281E6"));
        assert!(order("0055AED6DCD90281E5") < order("0055AED6DCD90281E51"));
        assert_eq!(order("00A0"), order("00a"));
        assert_eq!(Order::from_sequencer(""), None);
        assert_eq!(Order::from_sequencer("xyz"), None);
        assert_eq!(Order::from_sequencer(&"0".repeat(33)), None);
        assert_eq!(Order::from_sequencer("0"), Some(Order::lowest(Basis::Sequencer)));
    }

    #[test]
    fn bases_never_compare() {
        let (a, b) = (Order::lowest(Basis::Sequencer), Order::lowest(Basis::Time));
        assert!(a.partial_cmp(&b).is_none());
    }

    #[test]
    fn texts_that_are_no_orders_are_refused() {
        for text in ["", "s", "t", "x1", "sxyz", "s1_", "s1_x", "s1_-1", "t-5", "t1.5", "s1_4294967296", "é"] {
            assert_eq!(text.parse::<Order>(), Err(BadOrder(text.to_owned())));
        }
    }

    #[test]
    fn a_time_before_the_epoch_is_the_lowest() {
        assert_eq!(Order::from_time(UnixMs(-5)), Order::lowest(Basis::Time));
    }

    proptest! {
        #[test]
        fn sequencers_order_as_the_source_says(a in "[0-9a-fA-F]{1,32}", b in "[0-9a-fA-F]{1,32}") {
            let padded = |hex: &str| format!("{hex:0<32}").to_lowercase();
            let order = |hex: &str| Order::from_sequencer(hex).expect("hex");
            prop_assert_eq!(order(&a).partial_cmp(&order(&b)), Some(padded(&a).cmp(&padded(&b))));
        }

        /// No event's order lies between an order and its next sub: nothing can slip in.
        #[test]
        fn the_next_sub_is_right_above(hex in "[0-9a-f]{1,32}", other in "[0-9a-f]{1,32}", subs in 0u32..5) {
            let order = (0..subs).fold(Order::from_sequencer(&hex).expect("hex"), |order, _| order.next_sub());
            let event = Order::from_sequencer(&other).expect("hex");
            prop_assert_eq!(order < order.next_sub(), true);
            prop_assert_eq!(order < event, order.next_sub() < event);
        }

        #[test]
        fn text_reads_back(rank: u128, ms in 0i64..9_999_999_999_999, sub: u32) {
            for order in [
                Order { basis: Basis::Sequencer, rank, sub },
                Order { sub, ..Order::from_time(UnixMs(ms)) },
            ] {
                prop_assert_eq!(order.to_string().parse::<Order>(), Ok(order));
            }
        }
    }
}
