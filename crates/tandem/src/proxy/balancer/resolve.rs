//! Talks to the resolver: keeps the group's addresses what the owner's names stand for.
//! In: `Upstream`s. Out: the group's endpoints.
//! Keeps: an answer that is lost, late or empty never forgets the last good one; a name that was
//! never answered has no addresses yet, and keeps the others from nothing.
//! Not here: what answers mean that tell only parts (`tandem_core`), what becomes of connections to
//! an address that is gone (`member/leaving.rs`).
//! Tested by: below, and `tests.rs`.

use super::group::{Group, Wanted};
use super::{BalancerConfig, Upstream};
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::load_balanced::answers::Answers;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long what takes.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Between two questions; the system's own cache knows how long an answer lasts.
    interval: Duration,
    /// After a question without an answer.
    retry: Duration,
    /// For one answer.
    timeout: Duration,
}

const PACE: Pace = Pace {
    interval: Duration::from_secs(10),
    retry: Duration::from_secs(1),
    timeout: Duration::from_secs(5),
};

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

    /// Asks for every name at once and tells the group after each answer: one that is not answered
    /// keeps nobody waiting. Whether all were answered.
    async fn ask<L: Future<Output = io::Result<Vec<IpAddr>>>>(
        &mut self,
        group: &Group,
        limit: Duration,
        lookup: impl Fn(String, u16) -> L,
    ) -> bool {
        let is_name = |upstream: &Upstream| upstream.host.parse::<IpAddr>().is_err();
        let names = self.0.iter().enumerate().filter(|(_, (upstream, _))| is_name(upstream));
        let question = |(at, (upstream, _)): (usize, &(Upstream, Answers<IpAddr>))| {
            let answer = timeout(limit, lookup(upstream.host.clone(), upstream.port));
            async move { (at, answer.await) }
        };
        let mut asked: FuturesUnordered<_> = names.map(question).collect();
        let mut all = true;
        while let Some((at, answer)) = asked.next().await {
            let mut found = match answer {
                Ok(Ok(addresses)) => addresses,
                Ok(Err(_)) | Err(_) => Vec::new(),
            };
            found.sort_unstable();
            found.dedup();
            if found.is_empty() {
                all = false;
            } else {
                self.0[at].1.answered(&found);
                self.tell(group);
            }
        }
        all
    }
}

async fn lookup(host: String, port: u16) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((host, port)).await?;
    Ok(found.map(|address| address.ip()).collect())
}

/// Asks until `stop`, for the names of the configuration as it is.
pub(super) async fn run(
    group: Arc<Group>,
    config: watch::Receiver<Arc<BalancerConfig>>,
    stop: CancellationToken,
) {
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
    let next = |(names, were_told): (&Names, bool),
                config: &mut watch::Receiver<Arc<BalancerConfig>>| {
        let next = names.followed_by(&config.borrow_and_update());
        let are_told = were_told && names.are_addresses() && next.are_addresses();
        (next, are_told)
    };
    loop {
        if !are_told {
            // At once, before any question that may take long.
            names.tell(group);
        }
        let answered = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            result = config.changed() => {
                if result.is_err() {
                    return;
                }
                (names, are_told) = next((&names, are_told), &mut config);
                continue;
            }
            answered = names.ask(group, pace.timeout, &lookup) => answered,
        };
        if !are_told {
            names.tell(group);
        }
        let pause = if answered { pace.interval } else { pace.retry };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            result = config.changed() => {
                if result.is_err() {
                    return;
                }
                (names, are_told) = next((&names, are_told), &mut config);
            }
            () = sleep(pause), if !names.are_addresses() => {}
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
    const QUICK: Pace = Pace {
        interval: Duration::from_millis(1),
        retry: Duration::from_millis(1),
        timeout: Duration::from_millis(5),
    };

    fn upstream(host: &str) -> Upstream {
        Upstream { host: host.to_owned(), port: 80, weight: 1, far: false, drain: false }
    }

    #[tokio::test]
    async fn a_name_that_is_not_answered_keeps_nobody_waiting() {
        let mut config = config(&[]);
        config.upstreams = ["silent", "wrong", "good"].map(upstream).to_vec();
        let (group, mut names) = (Group::new(&config), Names::new(&config));
        let lookup = |host: String, _| async move {
            match host.as_str() {
                "good" => Ok(vec![IpAddr::from([192, 0, 2, 1])]),
                "wrong" => Err(std::io::ErrorKind::NotFound.into()),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = names.ask(&group, LONG, lookup) => panic!("one is not answered"),
            () = until_true(|| group.members().len() == 1) => {}
        }
        assert_eq!(*group.unresolved(), ["silent", "wrong"]);
    }

    /// What a resolver does next.
    #[derive(Clone, Copy, Debug)]
    enum Answers {
        One(u8),
        Nothing,
        Error,
        Silence,
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
                    Answers::Silence => std::future::pending().await,
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
                for lost in [Answers::Nothing, Answers::Error, Answers::Silence] {
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
        let mut late = std::pin::pin!(run(Arc::clone(&group), watched, CancellationToken::new()));
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
        let mut late = std::pin::pin!(run(Arc::clone(&group), watched, CancellationToken::new()));
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
