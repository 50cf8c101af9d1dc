#!/bin/busybox sh
# The guest's first process: makes the system what tests take for one, runs them, and switches off. What it says of
# itself begins with "rnet-vm:" and is read by report.rs.
export PATH=/usr/sbin:/usr/bin:/bin
export HOME=/root

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
ln -s /proc/self/fd /dev/fd
for directory in /run /tmp /dev/shm; do mount -t tmpfs -o mode=1777 tmpfs "$directory"; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf -o mode=700 bpf /sys/fs/bpf
# Debian's kernels load what is missing from here; busybox has it elsewhere.
echo /bin/modprobe >/proc/sys/kernel/modprobe
ip link set lo up

# The other console is the kernel's.
exec >/dev/ttyS1 2>&1 </dev/null
echo "rnet-vm: kernel $(uname -r)"
export RNET_BIN=/work/rnet RNET_BPF_OBJECT=/work/datapath.o RNET_REQUIRE_ALL=1
# An emulated processor is ten times as slow, and others may be at work on those that emulate it.
export RNET_TEST_PATIENCE=10
# Those of Debian's kernels that rnet runs on have them.
export RNET_REQUIRE_NETKIT=1
# Nobody else goes by its clock.
export RNET_OWN_MACHINE=1
while read -r name program arguments; do
    echo "rnet-vm: begin $name"
    # shellcheck disable=SC2086 # several words
    "/work/$program" $arguments
    echo "rnet-vm: end $name $?"
done </work/steps
echo "rnet-vm: over"
poweroff -f
