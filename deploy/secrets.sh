#!/bin/sh
# Makes .env: .env.example with a random value for every line `NAME=`. One that is there is left alone.
set -euC # C: > does not replace a file
umask 077
cd "$(dirname "$0")/.."
while IFS= read -r line; do
    case $line in
        \#*) ;;
        *=) line=$line$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n') ;;
    esac
    printf '%s\n' "$line"
done < .env.example > .env
