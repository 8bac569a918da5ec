//! A table, those who send to it, and the lives of the server that holds it: one step after the other, drawn by the seed, and
//! after each one everything is held against the model.

use super::clients::{Appending, Outcome, Pushing, Rebuilding};
use super::executor::{Executor, Ran};
use super::life::{Life, Opening, Setting};
use super::machine::{Death, Faults, Machine, Point, Trace};
use super::metastore::Ledger;
use super::model::{Model, Push, Row, Sent};
use super::queries::Queries;
use super::scenario::Scenario;
use super::stream::Topic;
use super::view::View;
use super::{archived_ranges, disk_files, payload};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Noon of day 20,000.
const BEGIN_MS: i64 = 20_000 * 86_400_000 + 43_200_000;
const HOUR_MS: i64 = 3_600_000;
/// Steps of a simulation, at least, and more by chance.
const STEPS: u64 = 30;
/// Turns in which an undisturbed server must have read, committed and shown all there is.
const ROUNDS_MAX: u32 = 400;

/// Why a simulation failed.
pub(super) type Wrong = String;

/// All of it.
pub(super) struct World {
    machine: Arc<Machine>,
    executor: Arc<Executor>,
    setting: Setting,
    scenario: Scenario,
    model: Model,
    ledger: Arc<Mutex<Ledger>>,
    life: Option<Life>,
    appending: Vec<Appending>,
    pushing: Option<Pushing>,
    rebuilding: Option<((i64, i64), Rebuilding)>,
    queries: Arc<Queries>,
    /// What a client's files are in.
    clients: PathBuf,
    /// The watermarks that this life has shown.
    shown: BTreeMap<u32, u64>,
    /// Queries that take long: what they pinned, and what they read first.
    pinned: Vec<(View, Vec<Row>)>,
    pushes: u64,
    numbers: i64,
    deaths: u64,
    _folder: TempDir,
}

impl World {
    pub(super) fn new(
        seed: u64,
        queries: &Arc<Queries>,
        runtime: &Arc<Runtime>,
        keeps_trace: bool,
    ) -> Self {
        let folder = super::temporary_folder();
        let disk = folder.path().join("disk");
        let clients = folder.path().join("clients");
        std::fs::create_dir(&disk).expect("the disk's folder is made");
        std::fs::create_dir(&clients).expect("the clients' folder is made");
        let machine = Arc::new(Machine::new(seed, &disk, keeps_trace));
        let scenario = Scenario::draw(&machine);
        let executor = Executor::new(Arc::clone(&machine), BEGIN_MS);
        let topic = scenario.is_remote.then(|| Topic::new(scenario.partitions));
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut model = Model::new(scenario.retention_ms);
        model.sent = vec![Vec::new(); scenario.partitions as usize];
        let setting = Setting {
            data: disk,
            metastore: folder.path().join("meta.sqlite"),
            runtime: Arc::clone(runtime),
            machine: Arc::clone(&machine),
            executor: Arc::clone(&executor),
            ledger: Arc::clone(&ledger),
            topic,
            scenario: scenario.clone(),
        };
        setting.create_table();
        let appending = (0..scenario.partitions).map(Appending::new).collect();
        Self {
            machine,
            executor,
            setting,
            scenario,
            model,
            ledger,
            life: None,
            appending,
            pushing: None,
            rebuilding: None,
            queries: Arc::clone(queries),
            clients,
            shown: BTreeMap::new(),
            pinned: Vec::new(),
            pushes: 0,
            numbers: 0,
            deaths: 0,
            _folder: folder,
        }
    }

    pub(super) fn trace(&self) -> Trace {
        self.machine.trace()
    }

    /// How often the server died.
    pub(super) fn deaths(&self) -> u64 {
        self.deaths
    }

    /// The whole of it.
    pub(super) fn run(&mut self) -> Result<(), Wrong> {
        let steps = STEPS + self.machine.below(STEPS);
        for _ in 0..steps {
            self.be_alive()?;
            self.act()?;
            let (turns, time) = (self.machine.below(80), self.machine.below(4));
            let time = [0, 100, 3_000, 20_000][time as usize];
            self.go_on(1 + turns, Duration::from_millis(time))?;
        }
        self.come_to_rest()?;
        self.check_rest()?;
        // What is committed is there without what was in memory.
        self.stop()?;
        self.be_alive()?;
        self.come_to_rest()?;
        self.check_rest()?;
        self.check_files()?;
        self.stop()?;
        self.check_archive()
    }

    /// What is committed is in the archive, where there is one. No life is there.
    fn check_archive(&self) -> Result<(), Wrong> {
        if !self.scenario.archives {
            return Ok(());
        }
        let archived = archived_ranges(&self.setting.data.join("deep"))?;
        for (partition, ranges) in &self.ledger.lock().ranges {
            let mut next = ranges.first().map_or(0, |range| range.start);
            let end = ranges.last().map_or(0, |range| range.end);
            for (start, to) in archived.get(partition).into_iter().flatten() {
                next = if *start <= next { next.max(*to) } else { next };
            }
            if next < end {
                return Err(format!(
                    "partition {partition} is committed to {end} and archived to {next}"
                ));
            }
        }
        Ok(())
    }

    /// Starts lives until one is there.
    fn be_alive(&mut self) -> Result<(), Wrong> {
        let mut attempts = 0;
        while self.life.is_none() {
            attempts += 1;
            self.check_archive()?;
            if attempts > 4 {
                self.machine.set_faults(Faults::default());
            }
            if attempts > 8 {
                return Err("the server does not start any more".to_owned());
            }
            let opening = Opening::begin(&self.setting);
            if attempts < 3 && self.machine.once_in(8) {
                self.draw_death();
            }
            let mut error = None;
            for _ in 0..200 {
                let until = self.executor.elapsed() + Duration::from_secs(1);
                if self.executor.run(200, until) == Ran::Died {
                    break;
                }
                match opening.opened() {
                    None => {}
                    Some(Ok(life)) => {
                        self.life = Some(life);
                        break;
                    }
                    Some(Err(e)) => {
                        error = Some(e);
                        break;
                    }
                }
            }
            if self.life.is_some() {
                self.shown.clear();
                return self.check();
            }
            if let Some(e) = error {
                self.machine.note(format_args!("does not start: {e}"));
                if self.machine.faults().files == 0 && self.machine.faults().metastore == 0 {
                    return Err(format!("the server does not start: {e}"));
                }
                self.machine.end_life();
            } else if !self.machine.is_dead() {
                return Err("the server neither starts nor fails to".to_owned());
            }
            opening.give_up();
            self.bury();
        }
        Ok(())
    }

    /// After the end of a life: nothing of it is left but what the disk and the metastore hold.
    fn bury(&mut self) {
        self.deaths += 1;
        self.pinned.clear();
        self.queries.unset();
        self.executor.clear();
        if let Some(life) = self.life.take() {
            life.bury();
        }
        self.executor.clear();
        for appending in &mut self.appending {
            appending.is_gone();
        }
        if let Some(pushing) = &mut self.pushing {
            pushing.is_gone();
        }
        if let Some((_, rebuilding)) = &mut self.rebuilding {
            rebuilding.is_gone();
        }
        self.machine.restore();
    }

    fn draw_death(&self) {
        let point = self
            .machine
            .one_of(&[Point::Any, Point::Any, Point::File, Point::Transaction]);
        let left = match point {
            Point::Any => 1 + self.machine.below(250),
            Point::File => 1 + self.machine.below(60),
            Point::Transaction => 1 + self.machine.below(12),
        };
        let death = self.machine.one_of(&[Death::Kill, Death::Power]);
        self.machine.plan_death(point, left, death);
    }

    /// One thing that happens.
    fn act(&mut self) -> Result<(), Wrong> {
        let machine = Arc::clone(&self.machine);
        match machine.below(100) {
            0..35 => self.send(),
            35..50 => {
                let minutes = machine.one_of(&[1, 5, 20, 70, 180]);
                self.executor.leap(Duration::from_secs(60 * minutes));
            }
            50..64 => self.draw_death(),
            64..74 => self.begin_push(),
            74..80 => self.ask_for_seals(),
            80..86 => machine.set_faults(machine.one_of(&[
                Faults::default(),
                Faults::default(),
                Faults {
                    files: 15,
                    ..Faults::default()
                },
                Faults {
                    metastore: 6,
                    ..Faults::default()
                },
                Faults {
                    files: 40,
                    metastore: 20,
                    stream: 4,
                },
            ])),
            86..89 => {
                let minutes = machine.below(240) as i64 - 120;
                self.executor.jump(minutes * 60_000);
            }
            89..92 => self.pin()?,
            92..94 => self.trim(),
            94..96 => self.grow(),
            96..98 => self.restart_consumers(),
            _ => self.stop()?,
        }
        Ok(())
    }

    /// Some messages for a partition.
    fn send(&mut self) {
        let machine = Arc::clone(&self.machine);
        let partition = machine.below(self.model.sent.len() as u64) as usize;
        for _ in 0..1 + machine.below(12) {
            let row = (!machine.once_in(25)).then(|| {
                self.numbers += 1;
                let age_ms = match machine.once_in(4) {
                    true => machine.below(8 * HOUR_MS as u64),
                    false => machine.below(HOUR_MS as u64),
                };
                (self.numbers, self.executor.now_ms() - age_ms as i64)
            });
            let payload = payload(row);
            let offset = match &self.setting.topic {
                Some(topic) => {
                    let hole = if machine.once_in(10) {
                        machine.below(4)
                    } else {
                        0
                    };
                    topic.append(partition as u32, hole, payload.into())
                }
                None => self.model.end_of(partition as u32),
            };
            self.model.sent[partition].push(Sent { offset, row });
        }
        machine.note(format_args!(
            "sent to {partition}, {} in all",
            self.model.sent[partition].len()
        ));
    }

    fn ask_for_seals(&self) {
        if let Some(life) = &self.life {
            for tail in life.tails() {
                tail.request_seal();
            }
        }
    }

    fn begin_push(&mut self) {
        if !self.scenario.is_hybrid || self.pushing.is_some() || self.rebuilding.is_some() {
            return;
        }
        let machine = Arc::clone(&self.machine);
        if self.scenario.archives && machine.once_in(2) {
            return self.begin_rebuild();
        }
        let now_ms = self.executor.now_ms();
        let start = (now_ms - machine.below(7 * HOUR_MS as u64) as i64).div_euclid(HOUR_MS);
        let hours = 1 + machine.below(2) as i64;
        let interval = (start * HOUR_MS, (start + hours) * HOUR_MS);
        let row = |_| {
            self.numbers += 1;
            let within = machine.below((interval.1 - interval.0) as u64) as i64;
            (self.numbers, interval.0 + within)
        };
        self.pushes += 1;
        let push = Push {
            id: format!("push {}", self.pushes),
            interval,
            // Before one has declared what it is complete for, coverage is inferred, which the model does not do.
            replaces: machine.once_in(2) && self.model.has_declared(),
            rows: (0..1 + machine.below(20)).map(row).collect(),
        };
        machine.note(format_args!("begins {} of {interval:?}", push.id));
        let segment_rows_max = machine.one_of(&[0, 0, 3, 8]);
        self.pushing = Some(Pushing::new(&self.clients, &push, segment_rows_max));
        self.model.begin(push);
    }

    fn begin_rebuild(&mut self) {
        let now_ms = self.executor.now_ms();
        // Not at hours: rows of a period may be taken over while some of its times are rebuilt.
        let start = now_ms - self.machine.below(7 * HOUR_MS as u64) as i64;
        let interval = (
            start,
            start + 1 + self.machine.below(3 * HOUR_MS as u64) as i64,
        );
        self.machine
            .note(format_args!("begins to rebuild {interval:?}"));
        self.rebuilding = Some((interval, Rebuilding::new(interval)));
    }

    fn pin(&mut self) -> Result<(), Wrong> {
        let Some(life) = &self.life else {
            return Ok(());
        };
        let (view, rows) = life.look()?;
        self.pinned.push((view, rows));
        Ok(())
    }

    /// The stream drops what is committed.
    fn trim(&mut self) {
        let partition = self.machine.below(self.model.sent.len() as u64) as u32;
        let before = self.ledger.lock().next_offset(partition);
        self.machine
            .note(format_args!("trims {partition} to {before}"));
        match (&self.setting.topic, &self.life) {
            (Some(topic), _) => topic.trim(partition, before),
            (None, Some(life)) => life.trim(&self.executor, partition, before),
            (None, None) => {}
        }
    }

    fn grow(&mut self) {
        if let Some(topic) = &self.setting.topic
            && self.model.sent.len() < 4
        {
            self.machine.note(format_args!("a partition more"));
            topic.add_partition();
            self.appending
                .push(Appending::new(self.model.sent.len() as u32));
            self.model.sent.push(Vec::new());
        }
    }

    /// As a table does whose config has changed.
    fn restart_consumers(&self) {
        if let Some(life) = &self.life {
            life.restart_consumers(&self.executor);
        }
    }

    /// Ends the life in good order.
    fn stop(&mut self) -> Result<(), Wrong> {
        let Some(life) = &self.life else {
            return Ok(());
        };
        let stopped = life.stop(&self.executor);
        for _ in 0..100 {
            let until = self.executor.elapsed() + Duration::from_secs(5);
            if self.executor.run(100, until) == Ran::Died || stopped.is_finished() {
                break;
            }
        }
        if !stopped.is_finished() && !self.machine.is_dead() {
            return Err("the server does not stop".to_owned());
        }
        if !self.machine.is_dead() {
            self.machine.end_life();
        }
        self.bury();
        Ok(())
    }

    /// Lets the server work, and the clients, and looks at what came of it.
    fn go_on(&mut self, turns: u64, time: Duration) -> Result<(), Wrong> {
        let Some(life) = &self.life else {
            return Ok(());
        };
        if self.setting.topic.is_none() {
            for appending in &mut self.appending {
                let sent = &self.model.sent[appending.partition as usize];
                appending.go_on(life, &self.executor, &self.machine, sent);
            }
        }
        if let Some(pushing) = &mut self.pushing {
            pushing.go_on(life, &self.executor, &self.machine);
        }
        if let Some((interval, rebuilding)) = &mut self.rebuilding
            && rebuilding.go_on(life, &self.executor, &self.machine)
        {
            self.model.ask_for_rebuild(*interval, self.shown.clone());
        }
        let until = self.executor.elapsed() + time;
        let ran = self.executor.run(turns, until);
        self.hear()?;
        if ran == Ran::Died {
            self.bury();
            return self.be_alive();
        }
        self.check()
    }

    /// Takes the answers that clients got.
    fn hear(&mut self) -> Result<(), Wrong> {
        for appending in &mut self.appending {
            appending.hear(&self.machine)?;
        }
        if let Some((_, rebuilding)) = &mut self.rebuilding
            && rebuilding.hear(&self.machine)?
        {
            self.rebuilding = None;
            self.model.end_rebuild();
        }
        let outcome = self.pushing.as_mut().map(|p| p.hear(&self.machine));
        match outcome.transpose()? {
            None | Some(Outcome::Unknown) => {}
            Some(Outcome::Done) => {
                self.pushing = None;
                self.model.end(true)?;
            }
            Some(Outcome::Refused) => {
                self.pushing = None;
                self.model.end(false)?;
            }
        }
        Ok(())
    }

    /// Holds what would be answered now against the model.
    fn check(&mut self) -> Result<(), Wrong> {
        let Some(life) = &self.life else {
            return Ok(());
        };
        let (view, rows) = life.look()?;
        let visible = view.visible(life.table()).map_err(|e| e.to_string())?;
        for (partition, end) in &visible {
            let (end, before) = (*end, self.shown.get(partition).copied().unwrap_or(0));
            if end < before {
                return Err(format!(
                    "partition {partition} was visible to {before}, and now to {end}"
                ));
            }
            let committed = self.ledger.lock().next_offset(*partition);
            let all = self.model.end_of(*partition);
            if end > all && self.setting.topic.is_none() {
                return Err(format!(
                    "partition {partition} is visible to {end} of {all}"
                ));
            }
            if committed > end {
                return Err(format!(
                    "partition {partition} is committed to {committed} and visible to {end}"
                ));
            }
        }
        self.shown.extend(&visible);
        self.model
            .check(&rows, &visible, self.executor.latest_ms())?;
        if self.machine.once_in(24) {
            let asked = self.queries.ask(life.registry(), life.table())?;
            if asked != rows {
                return Err(format!("SQL answers {asked:?} where {rows:?} are"));
            }
        }
        for (view, rows) in &self.pinned {
            let again = view
                .rows(life.registry(), life.table())
                .map_err(|e| format!("a query that takes long fails: {e}"))?;
            if again != *rows {
                return Err(format!(
                    "a query that takes long read {rows:?}, and now {again:?}"
                ));
            }
        }
        if self.pinned.len() > 2 || self.machine.once_in(12) {
            self.pinned.clear();
        }
        if let Some(wrong) = self.ledger.lock().wrong.first() {
            return Err(wrong.clone());
        }
        life.check_accounts(&self.model, &self.ledger.lock())
    }

    /// Without faults and deaths all that was sent is read and committed, in finite time.
    fn come_to_rest(&mut self) -> Result<(), Wrong> {
        self.machine.spare();
        self.machine.set_faults(Faults::default());
        self.pinned.clear();
        for round in 0..ROUNDS_MAX {
            self.be_alive()?;
            self.ask_for_seals();
            self.go_on(150, Duration::from_secs(2))?;
            if round % 8 == 7 {
                self.executor.leap(Duration::from_secs(61));
            }
            if self.is_at_rest() {
                return Ok(());
            }
        }
        Err(format!(
            "not all is read and committed: {:?} of {:?}; appends {:?}; a push waits: {}, a rebuild: {}; {}",
            self.ledger
                .lock()
                .ranges
                .values()
                .map(|r| r.last().copied())
                .collect::<Vec<_>>(),
            (0..self.model.sent.len() as u32)
                .map(|p| self.model.end_of(p))
                .collect::<Vec<_>>(),
            self.appending
                .iter()
                .map(|a| a.acknowledged)
                .collect::<Vec<_>>(),
            self.pushing.is_some(),
            self.rebuilding.is_some(),
            self.life.as_ref().map(Life::status).unwrap_or_default()
        ))
    }

    fn is_at_rest(&self) -> bool {
        let ledger = self.ledger.lock();
        let all = (0..self.model.sent.len() as u32).all(|partition| {
            let (end, committed) = (self.model.end_of(partition), ledger.next_offset(partition));
            committed >= end
        });
        all && self.pushing.is_none() && self.rebuilding.is_none() && self.life.is_some()
    }

    /// Everything that was sent is visible, and what could not be decoded is kept.
    fn check_rest(&mut self) -> Result<(), Wrong> {
        self.check()?;
        let Some(life) = &self.life else {
            return Ok(());
        };
        let asked = self.queries.ask(life.registry(), life.table())?;
        let (_, rows) = life.look()?;
        if asked != rows {
            return Err(format!("SQL answers {asked:?} where {rows:?} are"));
        }
        let wrong: BTreeSet<(u32, u64)> = (0..)
            .zip(&self.model.sent)
            .flat_map(|(p, sent)| sent.iter().map(move |s| (p, s)))
            .filter(|(_, sent)| sent.row.is_none())
            .map(|(p, sent)| (p, sent.offset))
            .collect();
        let kept = life.dead_letters()?;
        if kept != wrong {
            return Err(format!(
                "dead letters of {kept:?}, and {wrong:?} can't be decoded"
            ));
        }
        Ok(())
    }

    /// The deep store comes to hold what is named, and nothing else.
    fn check_files(&mut self) -> Result<(), Wrong> {
        for _ in 0..ROUNDS_MAX {
            let Some(life) = &self.life else {
                return Err("the server died without a reason".to_owned());
            };
            let named = life.named()?;
            let stored = disk_files(&self.setting.data.join("deep"));
            if let Some(missing) = named.difference(&stored).next() {
                return Err(format!("segment {missing:?} is named, and has no file"));
            }
            if stored == named {
                return Ok(());
            }
            // Some are on their way in, or out.
            self.go_on(50, Duration::from_secs(5))?;
        }
        Err("files stay that nobody names".to_owned())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.pinned.clear();
        self.queries.unset();
        self.machine.end_life();
        self.executor.clear();
        if let Some(life) = self.life.take() {
            life.bury();
        }
        self.executor.clear();
    }
}
