// SPDX-License-Identifier: GPL-2.0-only

//! Data, and writes that go on while it is cloned.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::live::Batch;
use crate::live::Live;
use crate::live::Result;

/// Changes in one batch.
const BATCH: usize = 8;
/// Bytes in a value: from half of this up to all of it.
const VALUE: usize = 1000;

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Number of threads.
    pub threads: u32,
    /// Keys that each thread writes, over and over: so files become obsolete.
    pub keys: u64,
    /// Pause of each thread after each batch.
    pub pause: Duration,
}

/// Running writers. They stop when this is dropped.
///
/// Each thread has keys of its own. A batch changes some of them, and in the other column family
/// counts the thread's batches: both or neither are in a sound copy.
#[derive(Debug)]
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    batches: AtomicU64,
}

impl Writers {
    /// Starts to write.
    pub fn start(live: &Arc<Live>, load: Load, seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..load.threads)
            .map(|thread| {
                let (live, shared) = (Arc::clone(live), Arc::clone(&shared));
                thread::spawn(move || write(&live, &shared, load, thread, seed))
            })
            .collect();
        Self { shared, threads }
    }

    /// Batches that have been written so far.
    pub fn batches(&self) -> u64 {
        self.shared.batches.load(Ordering::Relaxed)
    }

    /// Ends them, and gives the number of batches.
    ///
    /// # Errors
    /// RocksDB's, of the first thread that had one.
    pub fn stop(mut self) -> Result<u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap_or(Ok(()))?;
        }
        Ok(self.batches())
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn write(live: &Live, shared: &Shared, load: Load, thread: u32, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed ^ u64::from(thread) << 32);
    let mut value = vec![0; VALUE];
    let mut count = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut batch = Batch::new();
        for _ in 0..BATCH {
            let key = format!("load-{thread:03}-{:010}", random.u64(..load.keys));
            if random.u8(..8) == 0 {
                batch.delete(0, key.as_bytes());
            } else {
                let value = &mut value[..random.usize(VALUE / 2..=VALUE)];
                random.fill(value);
                batch.put(0, key.as_bytes(), value);
            }
        }
        count += 1;
        batch.put(1, format!("batches-{thread:03}").as_bytes(), &count.to_be_bytes());
        live.write(&batch)?;
        shared.batches.fetch_add(1, Ordering::Relaxed);
        if !load.pause.is_zero() {
            thread::sleep(load.pause);
        }
    }
    Ok(())
}

/// Fills a database with about `bytes` of incompressible values under keys that [`Writers`] do not
/// touch, in files as RocksDB would make them.
///
/// # Errors
/// RocksDB's.
pub fn fill(live: &Live, bytes: u64, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut value = vec![0; VALUE];
    for at in 0..bytes / (VALUE * BATCH) as u64 {
        let mut batch = Batch::new();
        for _ in 0..BATCH {
            random.fill(&mut value);
            batch.put(0, &random.u128(..).to_be_bytes(), &value);
        }
        batch.put(1, b"filled", &at.to_be_bytes());
        live.write(&batch)?;
    }
    live.flush()
}
