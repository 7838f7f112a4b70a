//! What becomes of the guard when something goes wrong around it: the real `ctguard` in a
//! namespace of its own.

mod chaos;
mod cpu;
mod detection;
mod interfaces;
mod journal;
mod killed;
mod late;
mod leaving;
mod locks;
mod log;
mod modes;
mod mounts;
mod moved;
mod names;
mod pins;
mod privileges;
mod refused;
mod storage;
mod table;
mod takeover;
mod upgrade;
