# Lines of each theme of lima.c beside the budget in its contents list.
/^ \*\t *[0-9]+\. .*[0-9]$/ {
	n = $0
	sub(/^ \*\t */, "", n)
	sub(/ +[0-9]+$/, "", n)
	want[n] = $NF
}
/^\/\* ---- [0-9]+\. / {
	if (cur != "")
		got[cur] = NR - at
	cur = $0
	sub(/^\/\* ---- /, "", cur)
	sub(/ -+ \*\/$/, "", cur)
	at = NR
	order[++k] = cur
}
END {
	got[cur] = NR - at
	for (i = 1; i <= k; i++) {
		n = order[i]
		printf "%-30s %5d lines of %5d%s\n", n, got[n], want[n], (got[n] > want[n] + 0 ? "  over its budget" : "")
	}
}
