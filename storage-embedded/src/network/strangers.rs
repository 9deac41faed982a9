//! Connections that have not proved yet that they are of members.
//!
//! Those at the addresses of members have places of their own, which nobody at another address can take. All others are bounded for each address
//! and in total, in how many there are and in how many begin in a second. When there are too many, the oldest goes: a member proves within
//! milliseconds what a stranger never can, so a flood pushes out itself.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

/// The addresses of members have this share of the places.
const SHARE_OF_MEMBERS: usize = 2;

/// Of the other places, one address may have this share: the strangers at one cannot push out those at another.
const SHARE_OF_ONE_ADDRESS: usize = 2;

/// How many handshakes may begin in a second at one address that is no member's: ten times what a node needs that is about to be taken in. A handshake
/// of TLS takes up to a millisecond of the node's thread.
const HANDSHAKES_OF_ONE_ADDRESS: u32 = 64;

/// The same of all such addresses together: so a flood from many of them takes a quarter of a processor at the most.
const HANDSHAKES_OF_STRANGERS: u32 = 256;

const SECOND: Duration = Duration::from_secs(1);

/// So many addresses at which members have proved themselves are remembered, the latest: three for each of 32 members.
const MEMBERS_ADDRESSES: usize = 96;

/// Whom an address belongs to, as far as that can be said: of IPv6 one has a whole network of 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Address(IpAddr);

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                let network = address.to_bits() >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
            address => address,
        })
    }
}

/// At which addresses members have proved themselves, whoever called.
#[derive(Debug, Default)]
pub(crate) struct MembersAddresses(Mutex<VecDeque<Address>>);

impl MembersAddresses {
    /// A member has proved itself at this address.
    pub(crate) fn note(&self, address: IpAddr) {
        let (address, mut known) = (Address::from(address), self.0.lock());
        if known.back() == Some(&address) {
            return;
        }
        known.retain(|other| *other != address);
        if known.len() == MEMBERS_ADDRESSES {
            known.pop_front();
        }
        known.push_back(address);
    }

    /// Whether one has.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.0.lock().contains(&Address::from(address))
    }
}

/// The places of strangers.
#[derive(Debug)]
pub(crate) struct Strangers {
    at_members: Arc<Pool>,
    elsewhere: Arc<Pool>,
    rate: Mutex<Rate>,
}

impl Strangers {
    /// So many places, two at the least.
    pub(crate) fn new(most: usize) -> Self {
        let at_members = most.div_ceil(SHARE_OF_MEMBERS).max(1);
        let elsewhere = most.saturating_sub(at_members).max(1);
        Self {
            // Members may all have one address, behind a translation or on one machine.
            at_members: Arc::new(Pool::new(at_members, at_members)),
            elsewhere: Arc::new(Pool::new(elsewhere, elsewhere.div_ceil(SHARE_OF_ONE_ADDRESS))),
            rate: Mutex::new(Rate::default()),
        }
    }

    /// Gives a place to one that has come, and takes it from another if there is none. `is_members`: a member is at this address. `None`: there
    /// were too many of its kind within a second.
    pub(crate) fn arrive(&self, address: IpAddr, is_members: bool, now: Instant) -> Option<Stranger> {
        let address = Address::from(address);
        if is_members {
            return Some(self.at_members.arrive(address));
        }
        self.rate.lock().allows(address, now).then(|| self.elsewhere.arrive(address))
    }
}

/// How many handshakes have begun in the present second. Its size is bounded by the sum that it allows.
#[derive(Debug, Default)]
struct Rate {
    began: Option<Instant>,
    all: u32,
    of: HashMap<Address, u32>,
}

impl Rate {
    fn allows(&mut self, address: Address, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= SECOND) {
            (self.began, self.all) = (Some(now), 0);
            self.of.clear();
        }
        if self.all >= HANDSHAKES_OF_STRANGERS {
            return false;
        }
        let of_one = self.of.entry(address).or_default();
        if *of_one >= HANDSHAKES_OF_ONE_ADDRESS {
            return false;
        }
        *of_one += 1;
        self.all += 1;
        true
    }
}

/// Places, of which nobody takes one from whoever is in another pool.
#[derive(Debug)]
struct Pool {
    most: usize,
    most_of_one: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// In the order in which they came.
    strangers: BTreeMap<u64, (Address, oneshot::Sender<()>)>,
}

impl Pool {
    fn new(most: usize, most_of_one: usize) -> Self {
        Self { most, most_of_one, waiting: Mutex::default() }
    }

    fn arrive(self: &Arc<Self>, address: Address) -> Stranger {
        let mut waiting = self.waiting.lock();
        if let Some(number) = waiting.in_the_way_of(address, self.most, self.most_of_one) {
            // Whoever has it hears of it when this is dropped.
            waiting.strangers.remove(&number);
        }
        let (place, pushed_out) = oneshot::channel();
        let number = waiting.next;
        waiting.next += 1;
        waiting.strangers.insert(number, (address, place));
        assert!(waiting.strangers.len() <= self.most, "there are more strangers than places");
        Stranger { pool: Arc::clone(self), number, pushed_out }
    }
}

impl Waiting {
    /// Who has to go before one from this address comes.
    fn in_the_way_of(&self, address: Address, most: usize, most_of_one: usize) -> Option<u64> {
        let mut counts = HashMap::<_, usize>::new();
        self.strangers.values().for_each(|(address, _)| *counts.entry(*address).or_default() += 1);
        if counts.get(&address).is_some_and(|count| *count >= most_of_one) {
            return self.strangers.iter().find(|(_, (other, _))| *other == address).map(|(number, _)| *number);
        }
        if self.strangers.len() < most {
            return None;
        }
        // The oldest of those of which there are most.
        let highest = counts.values().max().copied()?;
        let of_many = |(_, (address, _)): &(&u64, &(Address, _))| counts.get(address) == Some(&highest);
        self.strangers.iter().find(of_many).map(|(number, _)| *number)
    }
}

/// The place of a stranger. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Stranger {
    pool: Arc<Pool>,
    number: u64,
    pushed_out: oneshot::Receiver<()>,
}

impl Stranger {
    /// Returns when another has taken the place.
    pub(crate) async fn pushed_out(&mut self) {
        let _ = (&mut self.pushed_out).await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.pool.waiting.lock().strangers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures::FutureExt;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn is_out(stranger: &mut Stranger) -> bool {
        stranger.pushed_out().now_or_never().is_some()
    }

    /// Strangers that come so seldom that only their number counts.
    struct Seldom(Strangers, Instant);

    impl Seldom {
        fn new(most: usize) -> Self {
            Self(Strangers::new(most), Instant::now())
        }

        fn arrive(&mut self, last: u8) -> Stranger {
            self.1 += SECOND;
            self.0.arrive(address(last), false, self.1).unwrap()
        }
    }

    #[tokio::test]
    async fn strangers_at_one_address_push_out_each_other_and_nobody_else() {
        let mut strangers = Seldom::new(16);
        let mut new = strangers.arrive(1);
        let mut flood: Vec<_> = (0..100).map(|_| strangers.arrive(2)).collect();
        assert!(!is_out(&mut new));
        let left: Vec<_> = flood.iter_mut().map(|stranger| !is_out(stranger)).collect();
        assert_eq!(left.iter().filter(|left| **left).count(), 4, "half of the places that members have not");
        assert_eq!(left[96..], [true; 4], "the latest stay");
    }

    #[tokio::test]
    async fn strangers_at_many_addresses_are_bounded_and_those_at_the_busiest_go_first() {
        let mut strangers = Seldom::new(16);
        let mut flood: Vec<_> = [2, 2, 2, 3, 4, 5, 6, 7].map(|last| strangers.arrive(last)).into();
        let mut new = strangers.arrive(1);
        assert!(is_out(&mut flood[0]) && !is_out(&mut new));
        flood.extend((8..108).map(|last| strangers.arrive(last)));
        assert_eq!(strangers.0.elsewhere.waiting.lock().strangers.len(), 8);
        drop((flood, new));
        assert!(strangers.0.elsewhere.waiting.lock().strangers.is_empty());
    }

    #[tokio::test]
    async fn one_that_has_proved_itself_makes_room() {
        let mut strangers = Seldom::new(4);
        let mut first = strangers.arrive(1);
        for _ in 0..10 {
            drop(strangers.arrive(2));
        }
        assert!(!is_out(&mut first));
    }

    #[tokio::test]
    async fn a_flood_from_anywhere_takes_no_place_and_no_time_from_the_addresses_of_members() {
        let (strangers, now) = (Strangers::new(16), Instant::now());
        let mut members: Vec<_> =
            (0..8).map(|_| strangers.arrive(address(1), true, now).expect("a member's address has a place")).collect();
        let flood: Vec<_> =
            (0..10_000_u32).map(|host| strangers.arrive(host.to_be_bytes().into(), false, now)).collect();
        assert_eq!(flood.iter().flatten().count(), HANDSHAKES_OF_STRANGERS as usize);
        assert!(members.iter_mut().all(|member| !is_out(member)));
        assert!(strangers.arrive(address(1), true, now).is_some() && is_out(&mut members[0]));
    }

    #[tokio::test]
    async fn an_address_begins_so_many_handshakes_in_a_second_and_of_ipv6_a_network_does() {
        let (strangers, now) = (Strangers::new(16), Instant::now());
        let network = |host: u64| IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(host)));
        let begun = |at: Instant, address: &dyn Fn(u64) -> IpAddr| {
            (0..200).filter(|host| strangers.arrive(address(*host), false, at).is_some()).count()
        };
        let one = HANDSHAKES_OF_ONE_ADDRESS as usize;
        assert_eq!(begun(now, &|_| address(1)), one);
        assert_eq!(begun(now, &network), one);
        assert_eq!(begun(now + SECOND / 2, &|_| address(1)), 0);
        assert_eq!(begun(now + SECOND, &|_| address(1)), one);
        let mapped = |_: u64| IpAddr::V6(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
        assert_eq!(begun(now + SECOND, &mapped), 0, "the same address, written otherwise");
    }

    #[test]
    fn the_latest_addresses_of_members_are_remembered() {
        let known = MembersAddresses::default();
        for host in 0..2 * u32::try_from(MEMBERS_ADDRESSES).unwrap() {
            known.note(host.to_be_bytes().into());
            known.note(address(1));
        }
        assert!(known.has(address(1)) && !known.has([0, 0, 0, 0].into()));
        assert_eq!(known.0.lock().len(), MEMBERS_ADDRESSES);
    }
}
