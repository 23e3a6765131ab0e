//! Whole commands through the binary: what it writes, what it says, and how it ends. No machine is started.

mod ending;
mod publishing;
mod signing;
mod site;
mod world;
