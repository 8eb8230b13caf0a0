# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# fuzz: the seeds of `make fuzz`, found cases among them, once each

test_fuzz() {
	begin fuzz
	limit=200
	run "${CC:-cc}" -w -DSTANDALONE -DVERSION='"test"' -o "$HOME/fuzz" tests/fuzz.c
	status 0
	ok 'tests/fuzz.c compiles'
	if [ "$rc" = 0 ]; then
		for d in tests/seeds/*; do
			run env FUZZ="${d##*/}" "$HOME/fuzz" "$d"/*
			status 0
			noout
			noerr
			ok "seeds of ${d##*/}"
			# and all their heads
			for f in "$d"/*; do
				set --
				size=$(stat -c %s "$f") i=0
				while [ "$i" -lt "$size" ] && [ "$i" -lt 24 ]; do
					head -c $i "$f" >"$HOME/cut.$i"
					set -- "$@" "$HOME/cut.$i"
					i=$((i + 1))
				done
				run env FUZZ="${d##*/}" "$HOME/fuzz" "$@"
				status 0
				noerr
			done
			ok "cut seeds of ${d##*/}"
		done
		# shellcheck disable=SC2013  # words
		for t in $(sed -n 's/^FUZZ = //p' Makefile); do holds test -d "tests/seeds/$t"; done
		same "$(sed -n 's/^FUZZ = //p' Makefile | wc -w)" "$(find tests/seeds -mindepth 1 -maxdepth 1 | wc -l)"
		ok 'make fuzz names all of them'
	fi
	finish
}
