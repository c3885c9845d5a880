//! Decides every placement of two faults in a small world, instead of drawing some.

use crate::world::World;

impl World {
    /// A crash that was placed at a step of an action.
    pub fn place_crash(&mut self, n: usize) {
        self.note(n, || "crashes at this step".into());
        self.power_off(n);
        self.queue.push(self.now + 300_000, crate::event::Event::Boot { n });
        self.reconsider_leader();
    }
}
