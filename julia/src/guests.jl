# A user's own model as Python asks of it: what it is called, its parameters by name, its layers, and what else tells it from others.
# It is any callable whose parameters Flux finds, or a graph; where it takes samples it is asked in inference mode.

"the model as this package computes it: a graph, or a chain in inference mode"
own_network(g::Graph) = g
own_network(@nospecialize(model)) = inference(model)

"""
    bridge_look(model) -> name, names, arrays, number_type, rows

What it is called; its parameters by name with their arrays in the canonical layout, axes reversed; the type of its numbers; and of
how many rows the table is that tokens name, 0 where samples are numbers.
"""
function bridge_look(@nospecialize(model))
    network = own_network(model)
    own = parameters(network)
    isempty(own) && throw(ArgumentError("the model has no trainable parameters; allowed: at least one array that Flux trains"))
    rows = takes_tokens(network) ? table_rows(network) : 0
    return word(model), first.(own), bridge_canonical(network, last.(own)), string(number_type(network)), rows
end

"what a layer or a model is called: the name of its type, or of a function"
word(f::Function) = string(f)
word(@nospecialize(model)) = string(nameof(typeof(model)))

"the rows of the first table, as far as they are known: tokens up to there may be tried"
table_rows(@nospecialize(layer)) = 1
table_rows(e::Embedding) = size(e.weight, 2)
table_rows(s::SkipConnection) = table_rows(s.layers)
table_rows(@nospecialize(chain::Chain)) = maximum(table_rows, Any[chain.layers...]; init=1)

"the number of outputs of each of a few samples, and whether these are tokens; an error for what is not as a kernel needs it"
function bridge_try(@nospecialize(model), X::AbstractArray)
    network, given = ready(model, received(X))
    return size(check_outputs(network, given), 1), eltype(given) <: Integer
end

"names, words and outputs of a chain's layers, those of chains inside it one by one; none of anything else"
function bridge_layers(@nospecialize(model), X::AbstractArray)
    found = Tuple{String,String,Array}[]
    model isa Chain && each_layer!(found, ready(model, received(X))..., "")
    return first.(found), getindex.(found, 2), last.(found)
end

function each_layer!(found, @nospecialize(chain::Chain), x, prefix)
    for (index, layer) in enumerate(Any[chain.layers...])
        name = "$prefix$(index - 1)" # counted from 0, as in the names of parameters
        if layer isa Chain
            x = each_layer!(found, layer, x, "$name.")
        else
            x = by_layer(layer, x)
            x isa AbstractArray{<:Real} && push!(found, (name, word(layer), Array(x)))
        end
    end
    return x
end

"a copy of the model with other parameters, in their order and in the canonical layout"
function bridge_with(@nospecialize(model), arrays)
    forms = forms_of(model, arrays)
    return Flux.fmap(x -> get(forms, x, x), model; exclude=x -> haskey(forms, x) || Flux.Functors.isleaf(x))
end

"by a model's own arrays those that take their places"
forms_of(@nospecialize(model), arrays) = in_each_form(as_chain(model), bridge_own(model, arrays))
forms_of(g::Graph, arrays) = IdDict{Any,Any}(g.params[name] => Array(array) for (name, array) in zip(g.names, arrays))

"a copy of the model with its real numbers in Float32 or Float64"
bridge_converted(@nospecialize(model), name::AbstractString) = name == "float64" ? Flux.f64(model) : Flux.f32(model)

"the types and values of all that is in a model, as text, and its arrays in the order in which they come"
function bridge_described(@nospecialize(model))
    text, arrays = IOBuffer(), Any[]
    described!(text, arrays, IdDict{Any,Int}(), model)
    return String(take!(text)), arrays
end

function described!(text, arrays, seen, @nospecialize(x))
    x isa Union{Number,Symbol,AbstractString,Type,Module,Nothing} && return print(text, repr(x), ';')
    haskey(seen, x) && return print(text, '#', seen[x], ';')
    seen[x] = length(seen)
    print(text, typeof(x), '(')
    if x isa Array && isbitstype(eltype(x))
        print(text, size(x))
        push!(arrays, eltype(x) <: Union{Bool,Base.BitInteger,Float32,Float64} ? x : reinterpret(UInt8, vec(x)))
    elseif x isa Array
        foreach(i -> isassigned(x, i) ? described!(text, arrays, seen, x[i]) : print(text, "undef;"), eachindex(x))
    else
        foreach(i -> isdefined(x, i) && described!(text, arrays, seen, getfield(x, i)), 1:nfields(x))
    end
    return print(text, ')')
end

"what `name`, a function of the file at `path` without arguments, makes; the file is included in a module of its own"
function bridge_included(path::AbstractString, name::AbstractString)
    home = Module(Symbol(first(splitext(basename(path)))))
    # What `module` defines, and `Module` does not.
    Core.eval(home, :(include(path) = Base.include($home, path)))
    Core.eval(home, :(eval(x) = Core.eval($home, x)))
    Base.include(home, path)
    # The file's functions are younger than this one.
    return Base.invokelatest(made_by, home, path, Symbol(name))
end

function made_by(home::Module, path, name::Symbol)
    isdefined(home, name) || throw(ArgumentError("$path defines no $name"))
    return whole_model(getfield(home, name)())
end

"what a function made, as a model: of Lux it makes the model with its parameters and its state"
whole_model(made) = made
