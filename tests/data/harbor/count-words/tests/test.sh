#!/bin/bash
# The number counts; that the text was left alone is a second score.
found=$(tr -d '[:space:]' < /app/answer.txt 2>/dev/null)
reward=0; [ "$found" = "$ANSWER" ] && reward=1
kept=0; cmp -s /app/text.txt /tests/text.txt && kept=1
echo "{\"reward\": $reward, \"kept\": $kept}" > /logs/verifier/reward.json
