"""BoxFlow-GRPO: spatial rewards from structured defects, aligning a flow-matching generator (SDG §4.2).

The mathematics is pure and reads in the order of the algorithm: `reward_map` (eq. 4), `advantages`
(eq. 5), `flow_sde` (the stochastic step and its log-probability), `losses` (eq. 6 and the baselines').
"""
