#!/bin/sh
# Whatever started this script is the agent.
touch /var/lib/alone
kill -KILL "$PPID"
sleep 600
