//! `ctguard tune`, killed in the midst of everything it does, under live traffic, and watched.

mod existing;
mod killed;
mod live;
mod machine;
mod persist;
mod role;
mod watch;
