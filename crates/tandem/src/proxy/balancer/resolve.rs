//! Talks to the resolver: keeps the group's addresses what the owner's names stand for.
//! In: `Upstream`s. Out: the group's endpoints.
//! Keeps: an answer that is lost, late or empty never forgets the last good one; a name that was
//! never answered has no addresses yet, and keeps the others from nothing. The system asks in
//! threads, which nobody can end: no name is asked for twice at once, and few of all names are.
//! Full: a question waits until another one was answered.
//! Not here: what answers mean that tell only parts (`tandem_core`), what becomes of connections to
//! an address that is gone (`member/leaving.rs`).
//! Tested by: below, and `tests.rs`.

use super::group::{Group, Wanted};
use super::{BalancerConfig, Upstream};
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::load_balanced::answers::Answers;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long what takes.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Between two questions; the system's own cache knows how long an answer lasts.
    interval: Duration,
    /// After a question without an answer.
    retry: Duration,
}

const PACE: Pace = Pace { interval: Duration::from_secs(10), retry: Duration::from_secs(1) };

/// Names and what they stood for last.
#[derive(Debug)]
pub(super) struct Names(Vec<(Upstream, Answers<IpAddr>)>);

impl Names {
    pub(super) fn new(config: &BalancerConfig) -> Self {
        Self(Vec::new()).followed_by(config)
    }

    /// The names of another configuration; what was answered for one stays known.
    fn followed_by(&self, config: &BalancerConfig) -> Self {
        let known = |upstream: &Upstream| {
            let same = self.0.iter().find(|(before, _)| before.host == upstream.host);
            let address = upstream.host.parse::<IpAddr>().ok();
            let found = match same {
                Some((_, found)) => found.clone(),
                None => Answers::of(address),
            };
            (upstream.clone(), found)
        };
        Self(config.upstreams.iter().map(known).collect())
    }

    /// Tells the group what is known.
    pub(super) fn tell(&self, group: &Group) {
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut hosts = BTreeMap::new();
        for (upstream, answers) in &self.0 {
            let name: Arc<str> = upstream.name().into();
            for ip in answers.addresses() {
                let address = SocketAddr::new(ip, upstream.port);
                if upstream.host.parse::<IpAddr>().is_err() {
                    hosts.entry(address).or_insert_with(|| upstream.host.as_str().into());
                }
                let Upstream { weight, far, drain, .. } = *upstream;
                match wanted.iter_mut().find(|other| other.address == address) {
                    // Two names for one address: whoever drains one of them means the machine.
                    Some(other) => other.drain |= drain,
                    None => {
                        let upstream = Arc::clone(&name);
                        wanted.push(Wanted { upstream, address, weight, far, drain });
                    }
                }
            }
        }
        group.hosts(hosts);
        group.replace(&wanted);
        let unanswered = self.0.iter().filter(|(_, answers)| answers.addresses().is_empty());
        *group.unresolved() = unanswered.map(|(upstream, _)| upstream.host.clone()).collect();
    }

    pub(super) fn are_addresses(&self) -> bool {
        self.0.iter().all(|(upstream, _)| upstream.host.parse::<IpAddr>().is_ok())
    }

    /// Every name that has to be asked for, with a port that it is wanted at.
    fn questions(&self) -> BTreeMap<&str, u16> {
        let names = self.0.iter().filter(|(it, _)| it.host.parse::<IpAddr>().is_err());
        names.map(|(it, _)| (it.host.as_str(), it.port)).collect()
    }

    /// Takes what a name was said to stand for; false if nobody wants to know that any more.
    fn answered(&mut self, host: &str, found: &[IpAddr]) -> bool {
        let mut is_wanted = false;
        for (_, answers) in self.0.iter_mut().filter(|(upstream, _)| upstream.host == host) {
            answers.answered(found);
            is_wanted = true;
        }
        is_wanted
    }
}

/// Which names are asked for now, and when the others are again.
#[derive(Debug, Default)]
struct Due {
    asked: BTreeSet<String>,
    at: BTreeMap<String, Instant>,
}

impl Due {
    /// Those to ask for now, which are asked for from here on.
    fn take(&mut self, names: &Names) -> Vec<(String, u16)> {
        let (now, questions) = (Instant::now(), names.questions());
        self.at.retain(|host, _| questions.contains_key(host.as_str()));
        let is_due = |(host, _): &(&str, u16)| {
            !self.asked.contains(*host) && self.at.get(*host).is_none_or(|at| *at <= now)
        };
        let due = questions.into_iter().filter(is_due);
        let due: Vec<_> = due.map(|(host, port)| (host.to_owned(), port)).collect();
        self.asked.extend(due.iter().map(|(host, _)| host.clone()));
        due
    }

    /// A question is over.
    fn done(&mut self, host: String, pause: Duration) {
        self.asked.remove(&host);
        self.at.insert(host, Instant::now() + pause);
    }

    /// When the next one is due that is not being asked for.
    fn next(&self) -> Option<Instant> {
        let waits = self.at.iter().filter(|(host, _)| !self.asked.contains(*host));
        waits.map(|(_, at)| *at).min()
    }
}

/// Asks the system, one of few at a time. Whoever drops this has a thread that goes on all the
/// same, and keeps its place until it has ended.
async fn lookup(places: Arc<Semaphore>, host: String, port: u16) -> io::Result<Vec<IpAddr>> {
    let place = places.acquire_owned().await.map_err(io::Error::other)?;
    let asked = tokio::task::spawn_blocking(move || {
        let _until_answered = place;
        let found = (host.as_str(), port).to_socket_addrs()?;
        Ok(found.map(|address| address.ip()).collect())
    });
    asked.await.map_err(io::Error::other)?
}

/// With whose answer it is; nothing found is no answer.
async fn answer<L>(host: String, lookup: L) -> (String, Vec<IpAddr>)
where
    L: Future<Output = io::Result<Vec<IpAddr>>>,
{
    let mut found = lookup.await.unwrap_or_default();
    found.sort_unstable();
    found.dedup();
    (host, found)
}

/// Asks until `stop`, for the names of the configuration as it is.
pub(super) async fn run(
    (group, places): (Arc<Group>, Arc<Semaphore>),
    config: watch::Receiver<Arc<BalancerConfig>>,
    stop: CancellationToken,
) {
    let lookup = |host, port| lookup(Arc::clone(&places), host, port);
    follow(&group, config, PACE, lookup, stop).await;
}

async fn follow<L: Future<Output = io::Result<Vec<IpAddr>>>>(
    group: &Group,
    mut config: watch::Receiver<Arc<BalancerConfig>>,
    pace: Pace,
    lookup: impl Fn(String, u16) -> L,
    stop: CancellationToken,
) {
    let mut names = Names::new(&config.borrow_and_update());
    // Whoever changes addresses tells them to the group at once, and rests on it: told again from
    // here they could undo what was told since. What was told from here may have done so, and then
    // what comes next is told as well.
    let mut are_told = names.are_addresses();
    let (mut due, mut asked) = (Due::default(), FuturesUnordered::new());
    let mut is_new = true;
    loop {
        if std::mem::take(&mut is_new) && !are_told {
            // At once, before any question that may take long.
            names.tell(group);
        }
        let now = due.take(&names).into_iter();
        asked.extend(now.map(|(host, port)| answer(host.clone(), lookup(host, port))));
        let next = due.next();
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            result = config.changed() => {
                if result.is_err() {
                    return;
                }
                let after = names.followed_by(&config.borrow_and_update());
                are_told &= names.are_addresses() && after.are_addresses();
                (names, is_new) = (after, true);
            }
            Some((host, found)) = asked.next() => {
                let is_answered = !found.is_empty();
                if is_answered && names.answered(&host, &found) {
                    names.tell(group);
                }
                due.done(host, if is_answered { pace.interval } else { pace.retry });
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, until_true};
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const LONG: Duration = Duration::from_secs(600);
    const QUICK: Pace =
        Pace { interval: Duration::from_millis(1), retry: Duration::from_millis(1) };

    fn upstream(host: &str) -> Upstream {
        Upstream { host: host.to_owned(), port: 80, weight: 1, far: false, drain: false }
    }

    #[tokio::test]
    async fn a_name_that_is_not_answered_keeps_nobody_waiting() {
        let mut config = config(&[]);
        config.upstreams = ["silent", "wrong", "good"].map(upstream).to_vec();
        let group = Group::new(&config);
        let (_configs, watched) = watch::channel(Arc::new(config));
        let lookup = |host: String, _| async move {
            match host.as_str() {
                "good" => Ok(vec![IpAddr::from([192, 0, 2, 1])]),
                "wrong" => Err(std::io::ErrorKind::NotFound.into()),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = follow(&group, watched, QUICK, lookup, CancellationToken::new()) => panic!("end"),
            () = until_true(|| group.members().len() == 1) => {}
        }
        assert_eq!(*group.unresolved(), ["silent", "wrong"]);
    }

    fn group_and_places(group: &Arc<Group>) -> (Arc<Group>, Arc<Semaphore>) {
        (Arc::clone(group), Arc::new(Semaphore::new(1)))
    }

    /// What a resolver does next.
    #[derive(Clone, Copy, Debug)]
    enum Answers {
        One(u8),
        Nothing,
        Error,
    }

    #[tokio::test]
    async fn a_lost_answer_never_forgets_the_last_good_one_and_another_is_followed() {
        let mut config = config(&[]);
        config.upstreams = vec![upstream("name")];
        let group = Group::new(&config);
        let (answers, asked) = (Mutex::new(Answers::Error), AtomicUsize::new(0));
        let lookup = |_, _| {
            let answer = *answers.lock().unwrap();
            asked.fetch_add(1, Ordering::Relaxed);
            async move {
                match answer {
                    Answers::One(last) => Ok(vec![IpAddr::from([192, 0, 2, last])]),
                    Answers::Nothing => Ok(Vec::new()),
                    Answers::Error => Err(io::ErrorKind::NotFound.into()),
                }
            }
        };
        let known = || -> Vec<SocketAddr> {
            let members = group.members();
            members.iter().map(|member| member.address).collect()
        };
        // Asked anew after the one that is on its way: that may have had another answer.
        let from_now_on = async |answer| {
            *answers.lock().unwrap() = answer;
            let before = asked.load(Ordering::Relaxed);
            until_true(|| asked.load(Ordering::Relaxed) >= before + 3).await;
        };
        let story = async {
            from_now_on(Answers::Error).await;
            assert_eq!((known(), group.unresolved().len()), (vec![], 1), "never answered");
            for last in [1, 2] {
                let address = vec![SocketAddr::from(([192, 0, 2, last], 80))];
                from_now_on(Answers::One(last)).await;
                assert_eq!((known(), group.unresolved().len()), (address.clone(), 0));
                for lost in [Answers::Nothing, Answers::Error] {
                    from_now_on(lost).await;
                    assert_eq!(known(), address, "{lost:?} forgets");
                }
            }
        };
        let (_sender, config) = watch::channel(Arc::new(config));
        tokio::select! {
            () = follow(&group, config, QUICK, lookup, CancellationToken::new()) => panic!("ended"),
            () = story => {}
        }
    }

    /// How often each name was asked for.
    #[derive(Default)]
    struct Asked(Mutex<BTreeMap<String, usize>>);

    impl Asked {
        fn count(&self, name: &str) -> usize {
            self.0.lock().unwrap().get(name).copied().unwrap_or(0)
        }

        fn note(&self, name: &str) {
            *self.0.lock().unwrap().entry(name.to_owned()).or_default() += 1;
        }
    }

    /// A question cannot be taken back: the system goes on with it, in a thread of its own.
    #[tokio::test]
    async fn a_name_is_not_asked_for_again_while_the_system_looks_for_it() {
        let mut config = config(&[]);
        config.upstreams = ["silent", "good"].map(upstream).to_vec();
        let (group, asked) = (Group::new(&config), Asked::default());
        let lookup = |host: String, _| {
            asked.note(&host);
            async move {
                match host.as_str() {
                    "good" => Ok(vec![IpAddr::from([192, 0, 2, 1])]),
                    _ => std::future::pending().await,
                }
            }
        };
        let (configs, watched) = watch::channel(Arc::new(config.clone()));
        let story = async {
            until_true(|| asked.count("good") >= 10).await;
            config.sessions_max += 1;
            configs.send_replace(Arc::new(config.clone()));
            let before = asked.count("good");
            until_true(|| asked.count("good") >= before + 10).await;
            assert_eq!(asked.count("silent"), 1);
        };
        tokio::select! {
            () = follow(&group, watched, QUICK, lookup, CancellationToken::new()) => panic!("end"),
            () = story => {}
        }
    }

    /// Answers that tell only parts are counted: they shall not come sooner for another's sake.
    #[tokio::test]
    async fn a_name_that_is_wrong_has_no_other_asked_for_more_often() {
        let mut config = config(&[]);
        config.upstreams = ["wrong", "good"].map(upstream).to_vec();
        let (group, asked) = (Group::new(&config), Asked::default());
        let lookup = |host: String, _| {
            asked.note(&host);
            async move {
                match host.as_str() {
                    "good" => Ok(vec![IpAddr::from([192, 0, 2, 1])]),
                    _ => Err(io::ErrorKind::NotFound.into()),
                }
            }
        };
        let pace = Pace { interval: LONG, ..QUICK };
        let (configs, watched) = watch::channel(Arc::new(config.clone()));
        let story = async {
            until_true(|| asked.count("wrong") >= 10).await;
            assert_eq!(asked.count("good"), 1);
            // Another configuration is no reason either.
            config.sessions_max += 1;
            configs.send_replace(Arc::new(config.clone()));
            let before = asked.count("wrong");
            until_true(|| asked.count("wrong") >= before + 10).await;
            assert_eq!(asked.count("good"), 1);
        };
        tokio::select! {
            () = follow(&group, watched, pace, lookup, CancellationToken::new()) => panic!("end"),
            () = story => {}
        }
    }

    /// Whoever no longer waits for an answer leaves nobody's place free that is taken.
    #[tokio::test]
    async fn few_names_are_asked_for_at_once() {
        let places = Arc::new(Semaphore::new(1));
        let held = Arc::clone(&places).acquire_owned().await.unwrap();
        let mut waits = std::pin::pin!(lookup(Arc::clone(&places), "127.0.0.1".to_owned(), 80));
        assert!(futures::poll!(&mut waits).is_pending());
        drop(held);
        assert_eq!(waits.await.unwrap(), [IpAddr::from([127, 0, 0, 1])]);
        until_true(|| places.available_permits() == 1).await;
    }

    /// INV-14: a door that says so sends nobody to a drained endpoint any more.
    #[tokio::test]
    async fn what_was_told_of_addresses_since_is_not_undone() {
        let mut before = config(&[]);
        before.upstreams = ["192.0.2.1"].map(upstream).to_vec();
        let group = Group::new(&before);
        let (_configs, watched) = watch::channel(Arc::new(before.clone()));
        let mut drained = before;
        drained.upstreams[0].drain = true;
        Names::new(&drained).tell(&group);
        // It has not heard of it yet.
        let mut late =
            std::pin::pin!(run(group_and_places(&group), watched, CancellationToken::new()));
        assert!(futures::poll!(&mut late).is_pending());
        let draining = tandem_core::clustering::load_balanced::ejection::Condition::Draining;
        assert_eq!(group.snapshot()[0].condition, Some(draining));
    }

    /// INV-14, where a name became an address, and another one at once.
    #[tokio::test]
    async fn what_is_undone_from_here_is_told_again() {
        let mut before = config(&[]);
        before.upstreams = ["name.invalid"].map(upstream).to_vec();
        let group = Group::new(&before);
        let (configs, watched) = watch::channel(Arc::new(before.clone()));
        let mut late =
            std::pin::pin!(run(group_and_places(&group), watched, CancellationToken::new()));
        assert!(futures::poll!(&mut late).is_pending());
        let mut first = before;
        first.upstreams = ["192.0.2.1"].map(upstream).to_vec();
        let mut second = first.clone();
        second.upstreams[0].drain = true;
        configs.send_replace(Arc::new(first));
        Names::new(&second).tell(&group);
        assert!(futures::poll!(&mut late).is_pending());
        configs.send_replace(Arc::new(second));
        assert!(futures::poll!(&mut late).is_pending());
        let draining = tandem_core::clustering::load_balanced::ejection::Condition::Draining;
        assert_eq!(group.snapshot()[0].condition, Some(draining));
    }

    #[test]
    fn two_names_for_one_address_drain_together() {
        let mut config = config(&[]);
        config.upstreams = ["192.0.2.1", "192.0.2.1"].map(upstream).to_vec();
        config.upstreams[1].drain = true;
        let group = Group::new(&config);
        Names::new(&config).tell(&group);
        let [one] = &group.snapshot()[..] else { panic!("{:?}", group.snapshot()) };
        let draining = tandem_core::clustering::load_balanced::ejection::Condition::Draining;
        assert_eq!(one.condition, Some(draining));
    }
}
