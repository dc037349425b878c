package page

// Method offers methods to templates, which find none by themselves.
func (v endpointView) Method(name string) any {
	switch name {
	case "Here":
		return v.Here
	case "CanResume":
		return v.CanResume
	case "CanEnable":
		return v.CanEnable
	case "Backlog":
		return v.Backlog
	case "Oldest":
		return v.Oldest
	}
	return nil
}

// Method offers methods to templates.
func (r endpointRow) Method(name string) any {
	switch name {
	case "Backlog":
		return r.Backlog
	case "Oldest":
		return r.Oldest
	case "Why":
		return r.Why
	}
	return nil
}

// Method offers methods to templates.
func (l endpointList) Method(name string) any {
	switch name {
	case "Field":
		return l.Field
	case "Sorts":
		return l.Sorts
	case "States":
		return l.States
	}
	return nil
}
