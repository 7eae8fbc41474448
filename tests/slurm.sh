#!/usr/bin/env bash
# A Slurm of one node on 127.0.0.1, for tests: `slurm.sh start DIR`, `slurm.sh stop DIR`. Everything lies in DIR; clients
# find it by SLURM_CONF=DIR/slurm.conf. Needs slurmctld, slurmd and munged (Debian: slurm-wlm munge).
set -euo pipefail
PATH=$PATH:/usr/sbin
action=$1 dir=$2

configure() {
    mkdir -p "$dir/state" "$dir/spool" && chmod 700 "$dir"
    dd if=/dev/urandom of="$dir/munge.key" bs=128 count=1 status=none && chmod 600 "$dir/munge.key"
    local host port=$((20000 + $$ % 20000))
    host=$(hostname -s)
    cat > "$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=60 State=UP
CONF
}

start() {
    configure
    munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munged.seed"
    export SLURM_CONF=$dir/slurm.conf
    slurmctld -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF"
    for _ in $(seq 60); do
        if sinfo --noheader --format=%T 2> /dev/null | grep -qx idle; then return; fi
        sleep 0.5
    done
    echo "no idle node after 30 s" >&2
    tail -n 20 "$dir"/*.log >&2
    stop
    return 1
}

stop() {
    for name in slurmd slurmctld munged; do
        if [ -f "$dir/$name.pid" ]; then kill "$(cat "$dir/$name.pid")" 2> /dev/null || true; fi
    done
}

"$action"
