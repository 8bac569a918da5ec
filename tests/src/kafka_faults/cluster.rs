//! Two Kafka brokers as `tests/kafka.sh start-two` makes them, behind relays; their faults.

use super::relay::{Cut, Relay};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the brokers may take to be whole again after a fault.
const WHOLE_WITHIN: Duration = Duration::from_secs(180);
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kafka.sh");

/// The brokers.
pub struct Cluster {
    folder: PathBuf,
    /// Where producers and operators reach them, whatever is cut.
    pub inside: String,
    /// Where those reach them whose network is cut.
    pub outside: String,
    relays: [Relay; 2],
    admin: AdminClient<DefaultClientContext>,
    asks: BaseConsumer,
}

/// Of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Placed {
    leader: i32,
    in_sync: usize,
}

fn read(path: &Path) -> String {
    let text = std::fs::read_to_string(path);
    text.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .trim()
        .to_owned()
}

impl Cluster {
    /// The brokers of a folder.
    ///
    /// # Panics
    /// Where there are none.
    pub fn open(folder: &Path) -> Self {
        let inside = read(&folder.join("address"));
        let addresses = [1, 2].map(|broker| {
            let line = read(&folder.join(format!("{broker}/relay")));
            let mut addresses = line
                .split(' ')
                .map(|address| address.parse::<SocketAddr>().expect("an address"));
            let mut address = || addresses.next().expect("two addresses");
            (address(), address())
        });
        let client = || {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &inside);
            config.set("socket.timeout.ms", "5000");
            config.set("topic.metadata.refresh.interval.ms", "1000");
            config
        };
        Self {
            folder: folder.to_owned(),
            outside: addresses.map(|(at, _)| at.to_string()).join(","),
            relays: addresses.map(|(at, to)| Relay::start(at, to)),
            admin: client().create().expect("a client can be made"),
            asks: client().create().expect("a client can be made"),
            inside,
        }
    }

    /// Makes a topic whose partitions are on both brokers.
    pub async fn create_topic(&self, topic: &str, partitions: u32) {
        let partitions = i32::try_from(partitions).expect("few partitions");
        let new = [NewTopic::new(topic, partitions, TopicReplication::Fixed(2))];
        let made = self.admin.create_topics(&new, &AdminOptions::new()).await;
        for result in made.expect("Kafka answers") {
            result.expect("the topic is made");
        }
        self.wait_until_whole(topic).await;
    }

    /// Waits until both brokers hold all of a topic.
    pub async fn wait_until_whole(&self, topic: &str) {
        let since = Instant::now();
        loop {
            let placed = self.placed(topic);
            if !placed.is_empty() && placed.iter().all(|p| p.leader > 0 && p.in_sync == 2) {
                return;
            }
            assert!(
                since.elapsed() < WHOLE_WITHIN,
                "the brokers are not whole again after {WHOLE_WITHIN:?}: {placed:?}"
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// The broker that leads most partitions of a topic.
    pub fn leading(&self, topic: &str) -> usize {
        let placed = self.placed(topic);
        let of_first = placed.iter().filter(|p| p.leader == 1).count();
        if of_first * 2 >= placed.len() { 1 } else { 2 }
    }

    fn placed(&self, topic: &str) -> Vec<Placed> {
        let metadata = tokio::task::block_in_place(|| {
            (self.asks).fetch_metadata(Some(topic), Duration::from_secs(5))
        });
        let Ok(metadata) = metadata else {
            return Vec::new();
        };
        let topics = metadata.topics().iter();
        let partitions = topics.flat_map(|topic| topic.partitions());
        let placed = partitions.map(|partition| Placed {
            leader: partition.leader(),
            in_sync: partition.isr().len(),
        });
        placed.collect()
    }

    fn signal(&self, broker: usize, signal: &str) {
        let process = read(&self.folder.join(format!("{broker}/pid")));
        let sent = Command::new("kill").args([signal, &process]).status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "broker {broker} does not run"
        );
    }

    async fn script(&self, action: &str, arguments: &[&str]) {
        let mut command = Command::new(SCRIPT);
        command.arg(action).arg(&self.folder).args(arguments);
        let ran = tokio::task::spawn_blocking(move || command.status());
        let status = ran.await.expect("it does not panic");
        let status = status.unwrap_or_else(|e| panic!("{SCRIPT}: {e}"));
        assert!(
            status.success(),
            "{SCRIPT} {action} {arguments:?}: {status}"
        );
    }

    /// Ends a broker at once.
    pub fn kill(&self, broker: usize) {
        self.signal(broker, "-KILL");
    }

    /// Starts a broker again that was killed.
    pub async fn restart(&self, broker: usize) {
        self.script("restart", &[&broker.to_string()]).await;
    }

    /// Stops a broker as it is.
    pub fn freeze(&self, broker: usize) {
        self.signal(broker, "-STOP");
    }

    /// Has a frozen broker go on.
    pub fn thaw(&self, broker: usize) {
        self.signal(broker, "-CONT");
    }

    /// Moves all leaders of a topic to a broker.
    pub async fn lead(&self, topic: &str, partitions: u32, broker: usize) {
        let arguments = [topic, &partitions.to_string(), &broker.to_string()];
        self.script("lead", &arguments).await;
    }

    /// Cuts the network to brokers.
    pub fn cut(&self, brokers: &[usize], how: Cut) {
        for broker in brokers {
            self.relays[broker - 1].cut(how);
        }
    }

    /// Mends the network.
    pub fn mend(&self) {
        for relay in &self.relays {
            relay.heal();
        }
    }

    /// Deletes what a topic holds before these offsets, a partition each.
    pub async fn delete_before(&self, topic: &str, offsets: &[u64]) {
        let mut before = TopicPartitionList::new();
        for (partition, offset) in offsets.iter().enumerate() {
            let offset = Offset::Offset(i64::try_from(*offset).expect("an offset"));
            before
                .add_partition_offset(topic, partition as i32, offset)
                .expect("a partition");
        }
        let since = Instant::now();
        loop {
            let options = AdminOptions::new();
            let deleted = self.admin.delete_records(&before, &options).await;
            let deleted = deleted.and_then(|all| {
                let mut elements = all.elements().into_iter();
                elements.try_for_each(|element| element.error())
            });
            match deleted {
                Ok(()) => return,
                // It hears of a new leader by and by.
                Err(_) if since.elapsed() < WHOLE_WITHIN => {}
                Err(error) => panic!("Kafka deletes nothing: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}
