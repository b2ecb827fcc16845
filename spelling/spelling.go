// Package spelling finds the name that a misspelt one may have meant.
package spelling

// Nearest returns the known name with the fewest edits, "" if all are far away.
func Nearest(name string, known []string) string {
	best, bestDistance := "", max(2, len(name)/3)+1
	for _, k := range known {
		if d := Distance(name, k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// Distance is Levenshtein's: the bytes to insert, delete or replace to make b of a.
func Distance(a, b string) int {
	row := make([]int, len(b)+1) // distances of a[:i] to each b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
