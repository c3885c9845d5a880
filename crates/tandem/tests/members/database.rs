//! The PostgreSQL service of the cluster, as its clients and its operator use it.

use crate::machines::Machines;
use std::time::Duration;
use tandem::identity::Identity;

/// Far more than a statement takes.
const LIMIT: Duration = Duration::from_secs(60);

impl Machines {
    /// Asks for a failover that accepts loss until it is taken, or there is nothing to do.
    pub async fn failover(&self, at: &str) {
        let mut last = None;
        let asked = || {
            if self.primary(at) == at {
                return true;
            }
            last.insert(self.tandem(at, &["failover", "orders", "--accept-loss"])).code == 0
        };
        self.wait("a failover", at, asked).await;
        println!("{last:?}");
    }

    /// The first column of the first row, through a node's door.
    pub async fn sql(&self, at: &str, text: &str) -> String {
        let identity = Identity::load(self.dir(at)).unwrap();
        let door = self.of(at).door;
        let mut config = tokio_postgres::Config::new();
        config.host(door.ip().to_string()).port(door.port()).user("app").dbname("app");
        config.password(identity.password(&"orders".into(), "app"));
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        let (answer, _) = tokio::time::timeout(LIMIT, async {
            let query = async {
                let rows = client.simple_query(text).await;
                drop(client);
                rows
            };
            tokio::join!(query, connection)
        })
        .await
        .unwrap();
        let first = answer.unwrap().into_iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        first.unwrap_or_default()
    }
}
