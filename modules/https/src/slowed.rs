//! Addresses whose connections were cut: they come again at once, and each handshake costs a signature. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use beehive::Moment;
use beehive::link::accept_limiter::RateLimiter;

/// 60 s after the last connection that was cut.
const SLOW_FOR: Duration = Duration::from_secs(60);
/// 10 handshakes a second of such an address, 10 at once: who shares it with somebody who is cut still gets through.
const RATE: f64 = 10.0;
/// 1024 addresses; beyond that the one that was cut longest ago makes room.
const ADDRESSES_MAX: usize = 1024;

/// See the module.
pub(crate) struct Slowed {
    /// When a connection of it was cut last.
    since: BTreeMap<IpAddr, Moment>,
    rates: RateLimiter<IpAddr>,
}

impl Default for Slowed {
    fn default() -> Self {
        Slowed { since: BTreeMap::new(), rates: RateLimiter::new(RATE, RATE) }
    }
}

impl Slowed {
    /// A connection of the address was cut.
    pub(crate) fn add(&mut self, address: IpAddr, now: Moment) {
        self.since.insert(address, now);
        if self.since.len() > ADDRESSES_MAX {
            self.since.retain(|_, at| now.since(*at) < SLOW_FOR);
        }
        if self.since.len() > ADDRESSES_MAX
            && let Some(oldest) = self.since.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address)
        {
            self.since.remove(&oldest);
        }
    }

    /// Whether it is the turn of a handshake of the address.
    ///
    /// # Errors
    /// How long to wait.
    pub(crate) fn turn(&mut self, address: &IpAddr, now: Moment) -> Result<(), Duration> {
        match self.since.get(address) {
            None => Ok(()),
            Some(at) if now.since(*at) >= SLOW_FOR => {
                self.since.remove(address);
                Ok(())
            }
            Some(_) => self.rates.take(address, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment(Duration::from_millis(milliseconds))
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::from(std::net::Ipv4Addr::from(number))
    }

    #[test]
    fn who_was_cut_makes_ten_handshakes_a_second_for_a_minute_and_others_as_many_as_they_like() {
        let mut slowed = Slowed::default();
        slowed.add(address(1), at(0));
        let made = (0..1000).filter(|_| slowed.turn(&address(1), at(0)).is_ok()).count();
        assert_eq!(made, 10);
        assert!((0..1000).all(|_| slowed.turn(&address(2), at(0)).is_ok()));
        assert!(slowed.turn(&address(1), at(150)).is_ok() && slowed.turn(&address(1), at(150)).is_err());
        assert!((0..1000).all(|_| slowed.turn(&address(1), at(60_000)).is_ok()), "its time is over");
    }

    #[test]
    fn there_is_an_end_to_addresses() {
        let mut slowed = Slowed::default();
        for number in 0..3000 {
            slowed.add(address(number), at(number.into()));
        }
        assert_eq!((slowed.since.len(), slowed.since.contains_key(&address(2999))), (ADDRESSES_MAX, true));
    }
}
