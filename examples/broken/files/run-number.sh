#!/bin/sh
# Prints the number of a run: 42 for run-00042. It forgets the zeros in front.
printf '%s\n' "${1#run-}"
