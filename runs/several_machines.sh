#!/usr/bin/env bash
# Train on several machines that see one disk: start this on each, all with the same words but NODE.
#
#   NODES=2 NODE=0 FIRST=host0 PROCESSES=8 bash runs/several_machines.sh train --text books/ --parallel.fsdp 16
#   NODES=2 NODE=1 FIRST=host0 PROCESSES=8 bash runs/several_machines.sh train --text books/ --parallel.fsdp 16
#
# Afterwards, on any number of machines: ... several_machines.sh resume out/run
set -euo pipefail
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NODES:?how many machines}" \
    --node-rank "${NODE:?the number of this machine, from 0}" \
    --master-addr "${FIRST:?the name of machine 0}" \
    --master-port "${PORT:-29500}" \
    --nproc-per-node "${PROCESSES:-1}" \
    -m fewshot -- "$@"
