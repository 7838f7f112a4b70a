//! Which packets a guard takes for known flows where netfilter rewrites, bridges or sorts them: the
//! real `ctguard` on routers in namespaces. Ceilings are so low that whatever is called new for no
//! reason is soon refused.

mod bridge;
mod committed;
mod counts;
mod exempt;
mod forgetting;
mod home;
mod loose;
mod namespaces;
mod overload;
mod own;
mod replay;
mod restart;
mod sides;
mod talk;
mod translation;
mod zones;
