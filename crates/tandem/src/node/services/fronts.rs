//! Builds the front doors of this node, but for those of PostgreSQL.
//! In: `Ground`, `Config`. Out: open doors, which lead somewhere once they are let in; what waits.
//! Not here: what each of them is (the modules beside this one).

use super::super::{Error, Ground};
use super::Agreement;
use super::balancers::Balancers;
use super::copies::CopyServices;
use super::leased::{Graces, LeasedDoors};
use super::led::LedDoors;
use crate::config::Config;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::{ConfigVersion, ServiceId};

/// All of them, for as long as the node runs.
#[derive(Clone)]
pub(in crate::node) struct Fronts {
    pub leased: Arc<LeasedDoors>,
    pub balancers: Arc<Balancers>,
    pub led: Arc<LedDoors>,
    pub copies: Arc<CopyServices>,
}

impl Fronts {
    /// Binds them; nobody is led anywhere by what this node knows.
    ///
    /// # Errors
    /// An address cannot be had.
    pub(in crate::node) fn open(ground: &Arc<Ground>) -> Result<Self, Error> {
        let leased = Arc::new(LeasedDoors::open(ground)?);
        let (identity, supervisor) = (&ground.identity, &ground.supervisor);
        let balancers = Arc::new(Balancers::open(identity, &ground.config, supervisor)?);
        let led = Arc::new(LedDoors::open(ground, &balancers));
        let copies = Arc::new(CopyServices::open(ground)?);
        Ok(Self { leased, balancers, led, copies })
    }

    /// Lets clients in, once this node knows what it has.
    pub(in crate::node) fn let_in(&self, agreed: &Agreement) {
        self.leased.let_in(agreed);
        self.copies.let_in();
        self.led.let_in(agreed);
    }

    /// Goes on with another configuration; what could not be done is said, and done by the next
    /// call.
    pub(in crate::node) async fn follow(
        &self,
        (version, config): (ConfigVersion, &Config),
        agreed: &Agreement,
    ) -> Vec<String> {
        // What shall lead elsewhere is let go of before it is changed, and led on if it cannot be.
        self.led.let_go(config).await;
        // Whoever comes next may want an address that somebody leaves.
        self.balancers.end(config).await;
        self.copies.end(config).await;
        self.leased.end(config).await;
        let waits = self.balancers.follow(config).await;
        let (held_back, mut waits): (BTreeSet<ServiceId>, Vec<String>) = waits.into_iter().unzip();
        waits.extend(self.copies.follow(config, agreed));
        waits.extend(self.leased.follow((version, config), agreed));
        self.led.follow(config, (&self.balancers, &held_back), agreed);
        waits
    }

    /// This node is removed: nothing of it stays.
    pub(in crate::node) async fn part(&self, grace: Duration) {
        self.copies.part();
        let Self { leased, balancers, copies, led: _ } = self;
        let graces = Graces { alone: grace, by_key: grace };
        tokio::join!(balancers.close(grace), copies.close(grace), leased.close(graces));
    }
}
